package sys

// AskedBuffer is what to ask for to get a socket's buffer of n bytes, as SO_RCVBUF tells
// it: the kernel doubles what is asked for, to have room for its own structures.
func AskedBuffer(n int) int { return n / 2 }
