package portable

import (
	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

func keepIdle(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
}

func unsentBytes(fd int) (int, error) { return sys.UnsentBytes(fd) }
func unreadBytes(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.SIOCINQ) }

func userTimeout(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
}

func setUserTimeout(fd, ms int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
}

// setLinux sets an option that other systems lack, or name differently.
func setLinux(fd int, o backend.Option, value int) error { return sys.SetOption(fd, o, value) }

func unanswered(fd int) (int, error) { return sys.GetOption(fd, backend.Unanswered) }
func patience(fd int) (int, error)   { return sys.GetOption(fd, backend.Patience) }
