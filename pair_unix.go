//go:build unix && !linux

package weir

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Where a descriptor cannot be made close-on-exec at its creation, forking is
// held off until it is.

func socketPair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = ours(fds)
	}
	return fds, err
}

func pipe() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	var fds [2]int
	err := unix.Pipe(fds[:])
	if err == nil {
		err = ours(fds)
	}
	return fds, err
}

// ours makes fds close-on-exec and non-blocking.
func ours(fds [2]int) error {
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			closeFDs(fds[0], fds[1])
			return err
		}
	}
	return nil
}
