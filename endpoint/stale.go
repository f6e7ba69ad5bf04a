package endpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// NotSocketError reports a file that is in the way of a UNIX listener.
type NotSocketError struct {
	Path string
	What string // "a symbolic link", "a file", "a directory"
}

func (e *NotSocketError) Error() string {
	return fmt.Sprintf("%s is %s, not a socket", e.Path, e.What)
}

// clearStale removes a socket file on which nothing answers, and reports
// whether there was one. If the socket is in use, the error is EADDRINUSE.
// Anything but a socket is a *NotSocketError; links are not followed.
func clearStale(path string) (replaced bool, err error) {
	before, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if before.Mode()&fs.ModeSocket == 0 {
		return false, &NotSocketError{Path: path, What: fileType(before.Mode())}
	}
	c, err := net.DialTimeout("unix", path, answerTimeout)
	if err == nil {
		_ = c.Close() // it was only to see whether anything answers
		return false, syscall.EADDRINUSE
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // gone meanwhile
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		// A full queue, another type of socket, no permission: it is in use.
		return false, syscall.EADDRINUSE
	}
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !os.SameFile(before, now) {
		return false, syscall.EADDRINUSE // something else has taken the name meanwhile
	}
	return true, os.Remove(path)
}

func fileType(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "a file"
}
