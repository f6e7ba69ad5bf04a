//go:build !linux

package machine

// Available is how much memory this process may use: it is not known.
func Available() Memory { return Memory{} }
