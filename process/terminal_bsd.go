//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package process

import (
	"errors"

	"golang.org/x/sys/unix"
)

const (
	getTermios = unix.TIOCGETA
	setTermios = unix.TIOCSETA
)

func openTerminal(Size) (master, slave, tty int, err error) {
	return -1, -1, -1, errors.ErrUnsupported
}

func resizePath(int, Size) error { return errors.ErrUnsupported }
