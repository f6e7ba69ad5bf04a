package portable

import (
	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

func keepIdle(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPALIVE)
}

func unsentBytes(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NWRITE)
}

func unreadBytes(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NREAD)
}

func userTimeout(int) (int, error)            { return 0, backend.ErrUnsupported }
func setUserTimeout(int, int) error           { return backend.ErrUnsupported }
func setLinux(int, backend.Option, int) error { return backend.ErrUnsupported }
func unanswered(int) (int, error)             { return 0, backend.ErrUnsupported }
func patience(int) (int, error)               { return 0, backend.ErrUnsupported }
