//go:build !linux

package sys

// AskedBuffer is what to ask for to get a socket's buffer of n bytes, as SO_RCVBUF tells
// it.
func AskedBuffer(n int) int { return n }
