//go:build solaris || illumos || aix

package process

import (
	"errors"

	"golang.org/x/sys/unix"
)

const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
)

func openTerminal(Size) (master, slave, tty int, err error) {
	return -1, -1, -1, errors.ErrUnsupported
}

func resizePath(int, Size) error { return errors.ErrUnsupported }
