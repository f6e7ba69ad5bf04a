//go:build aix || solaris || illumos

package weir

import "golang.org/x/sys/unix"

const ioctlGetTermios = unix.TCGETS
