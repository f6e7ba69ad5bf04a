//go:build !linux

package netconn

import "io"

// unacknowledged is how many bytes a socket's peer has not acknowledged, which is
// known on Linux only.
func unacknowledged(io.ReadWriteCloser) int { return 0 }
