package weir

// Loop is being written.
type Loop struct{}
