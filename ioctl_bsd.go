//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package weir

import "golang.org/x/sys/unix"

const ioctlGetTermios = unix.TIOCGETA
