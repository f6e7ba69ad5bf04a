//go:build !linux

package weir

// threadID is for backends that need one thread, of which Linux has the only one.
// A goroutine that is locked stands for its thread.
func threadID() uint64 { return goroutineID() }
