//go:build linux && !ppc64 && !ppc64le

package sys

import "golang.org/x/sys/unix"

// The calls with which speeds are numbers.
const (
	getTermios2   = unix.TCGETS2
	setTermios2   = unix.TCSETS2
	drainTermios2 = unix.TCSETSW2 // once all is sent
)
