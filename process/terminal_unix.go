//go:build unix

package process

import (
	"os"

	"golang.org/x/sys/unix"
)

// IsTerminal reports whether descriptor fd is a terminal. It stays the caller's. Any
// goroutine may call it.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, getTermios)
	return err == nil
}

// Raw makes a terminal pass every byte on as it is, without echo, lines, signals or
// translation, and returns a function that restores its settings. They are the
// terminal's: everyone who has it open shares them, and they outlive the process, so restore is
// to be called however the process ends; it may be called more than once, and before another
// Raw of the same terminal. fd stays the caller's, and open until restore was called for the
// last time. Any goroutine may call them. In the background of a shell both stop the process
// (SIGTTOU) until it is in the foreground. The errors are the system's; ENOTTY: it is no
// terminal.
func Raw(fd int) (restore func() error, err error) {
	was, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, os.NewSyscallError("tcgetattr", err)
	}
	raw := *was
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag &^= unix.CSIZE | unix.PARENB
	raw.Cflag |= unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, setTermios, &raw); err != nil {
		return nil, os.NewSyscallError("tcsetattr", err)
	}
	return func() error {
		return os.NewSyscallError("tcsetattr", unix.IoctlSetTermios(fd, setTermios, was))
	}, nil
}

// noEcho turns a terminal's echo off.
func noEcho(fd int) error {
	t, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return os.NewSyscallError("tcgetattr", err)
	}
	t.Lflag &^= unix.ECHO
	return os.NewSyscallError("tcsetattr", unix.IoctlSetTermios(fd, setTermios, t))
}

// WindowSize is the size of a terminal, zero if it was never set. fd stays the caller's. Any
// goroutine may call it. The error is the system's; ENOTTY: it is no terminal.
func WindowSize(fd int) (Size, error) {
	w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return Size{}, os.NewSyscallError("ioctl", err)
	}
	return Size{Rows: w.Row, Columns: w.Col}, nil
}

// SetWindowSize sets the size of a terminal, whose foreground processes get SIGWINCH
// if it differs. fd stays the caller's. Any goroutine may call it. The error is the system's.
func SetWindowSize(fd int, s Size) error {
	return os.NewSyscallError("ioctl", unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Columns}))
}
