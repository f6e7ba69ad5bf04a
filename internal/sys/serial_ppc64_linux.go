//go:build linux && (ppc64 || ppc64le)

package sys

import "golang.org/x/sys/unix"

// Here the usual calls take speeds that are numbers.
const (
	getTermios2   = unix.TCGETS
	setTermios2   = unix.TCSETS
	drainTermios2 = unix.TCSETSW // once all is sent
)
