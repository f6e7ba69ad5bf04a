package sys

import "golang.org/x/sys/unix"

// SocketPair makes two connected UNIX stream sockets, non-blocking and close-on-exec.
func SocketPair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

// Pipe makes a pipe, non-blocking and close-on-exec: its reading end, then its writing
// end.
func Pipe() (fds [2]int, err error) {
	err = unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	return fds, err
}
