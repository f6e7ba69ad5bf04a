//go:build unix && !linux

package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// If a descriptor cannot be created close-on-exec, forking is held off until it has
// been made so.

// SocketPair makes two connected UNIX stream sockets, non-blocking and close-on-exec.
func SocketPair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = ours(fds)
	}
	return fds, err
}

// Pipe makes a pipe, non-blocking and close-on-exec: its reading end, then its writing
// end.
func Pipe() ([2]int, error) {
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
			CloseAll(fds[0], fds[1])
			return err
		}
	}
	return nil
}
