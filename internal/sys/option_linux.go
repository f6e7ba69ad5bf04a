package sys

import (
	"math"
	"syscall"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// SetOption sets a socket option. For options that this kind of socket lacks it returns
// the system's error, for those that can only be read ErrUnsupported.
func SetOption(fd int, o backend.Option, value int) error {
	switch o {
	case backend.NoDelay:
		return setInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, truth(value))
	case backend.KeepAlive:
		return setKeepAlive(fd, value)
	case backend.SendBuffer:
		return setInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, value)
	case backend.ReceiveBuffer:
		return setInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, value)
	case backend.UserTimeout:
		return setInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, value)
	case backend.Broadcast:
		return setInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, truth(value))
	case backend.TrafficClass:
		return setBoth(fd, unix.IPV6_TCLASS, value, unix.IP_TOS, value)
	case backend.MulticastHops:
		return setBoth(fd, unix.IPV6_MULTICAST_HOPS, value, unix.IP_MULTICAST_TTL, value)
	case backend.MulticastLoop:
		return setBoth(fd, unix.IPV6_MULTICAST_LOOP, truth(value), unix.IP_MULTICAST_LOOP, truth(value))
	case backend.DontFragment:
		if value == 0 {
			return setBoth(fd, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_WANT, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_WANT)
		}
		return setBoth(fd, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	case backend.Mark:
		return setInt(fd, unix.SOL_SOCKET, unix.SO_MARK, value)
	case backend.FastOpen:
		if listens, err := getInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil {
			return err
		} else if listens != 0 {
			return setInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, value)
		}
		return setInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, truth(value))
	case backend.UnsentBytes, backend.UnreadBytes, backend.PendingError, backend.Unanswered, backend.Patience, backend.Blocks:
	}
	return backend.ErrUnsupported
}

// setBoth sets the option name6 of IPv6, or name4 of IPv4, or both if the socket serves
// both.
func setBoth(fd, name6, value6, name4, value4 int) error {
	domain, err := getInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	if domain == unix.AF_INET6 {
		if err := setInt(fd, unix.IPPROTO_IPV6, name6, value6); err != nil {
			return err
		}
		if only, err := getInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err != nil || only != 0 {
			return err
		}
	}
	return setInt(fd, unix.IPPROTO_IP, name4, value4)
}

func setKeepAlive(fd, value int) error {
	if err := setInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, truth(value)); err != nil || value <= 0 {
		return err
	}
	if err := setInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, value); err != nil {
		return err
	}
	return setInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, value)
}

// GetOption returns a socket option: for the buffers the size that the kernel chose
// (Linux doubles the value), for KeepAlive 0 or the idle time in seconds (1 on sockets
// that have none).
func GetOption(fd int, o backend.Option) (int, error) {
	switch o {
	case backend.NoDelay:
		return getInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY)
	case backend.KeepAlive:
		return getKeepAlive(fd)
	case backend.SendBuffer:
		return getInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	case backend.ReceiveBuffer:
		return getInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	case backend.UnsentBytes:
		return UnsentBytes(fd)
	case backend.UnreadBytes:
		return queuedBytes(fd, unix.SIOCINQ)
	case backend.PendingError:
		return getInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	case backend.UserTimeout:
		return getInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	case backend.Broadcast:
		return getInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST)
	case backend.TrafficClass:
		if v, err := getInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS); err == nil {
			return v, nil
		}
		return getInt(fd, unix.IPPROTO_IP, unix.IP_TOS)
	case backend.MulticastHops:
		if v, err := getInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS); err == nil {
			return v, nil
		}
		return getInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL)
	case backend.MulticastLoop:
		if v, err := getInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP); err == nil {
			return v, nil
		}
		return getInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP)
	case backend.DontFragment:
		v, err := getInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER)
		if err != nil {
			v, err = getInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER)
		}
		switch v { // IPv6 has the same numbers
		case unix.IP_PMTUDISC_DO:
			return 1, err
		case unix.IP_PMTUDISC_PROBE:
			return 2, err
		}
		return 0, err
	case backend.Mark:
		return getInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
	case backend.FastOpen:
		if v, err := getInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT); err != nil || v != 0 {
			return v, err
		}
		return getInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN)
	case backend.Unanswered:
		return unanswered(fd)
	case backend.Patience:
		return patience(fd)
	case backend.Blocks: // the backend knows
	}
	return 0, backend.ErrUnsupported
}

// unanswered reads it from what the kernel knows about the connection. It requires one
// try beyond the first: even to a peer that answers, one try is often on its way.
func unanswered(fd int) (int, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.Retransmits < 2 && info.Probes < 2 {
		return 0, err
	}
	return int(min(info.Last_ack_recv, math.MaxInt32)), nil
}

func patience(fd int) (int, error) {
	on, err := getInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	if err != nil || on == 0 {
		return 0, err
	}
	var v [4]int
	for i, name := range [...]int{unix.TCP_USER_TIMEOUT, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT} {
		if v[i], err = getInt(fd, unix.IPPROTO_TCP, name); err != nil {
			return 0, err
		}
	}
	if v[0] != 0 {
		return 0, nil // the kernel takes care of it
	}
	return v[1] + v[2]*v[3], nil
}

func getKeepAlive(fd int) (int, error) {
	on, err := getInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	if err != nil || on == 0 {
		return 0, err
	}
	idle, err := getInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
	if err != nil {
		return 1, nil
	}
	return idle, nil
}

// PendingError returns the error that is pending on a socket and clears it; 0 for none,
// and for anything but a socket.
func PendingError(fd int) syscall.Errno {
	v, err := getInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return 0
	}
	return syscall.Errno(v)
}

func truth(v int) int {
	if v != 0 {
		return 1
	}
	return 0
}

func setInt(fd, level, name, value int) error {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	return failed(errno)
}

func getInt(fd, level, name int) (int, error) {
	var v int32
	n := uint32(unsafe.Sizeof(v))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&n)), 0)
	return int(v), failed(errno)
}

// UnsentBytes returns how many bytes the peer of the stream socket fd has not
// acknowledged but still may; of SCTP it is the memory that they take. The kernel goes on
// counting bytes that a reset has discarded; once it has reported the reset, only the
// socket's state shows it.
func UnsentBytes(fd int) (int, error) {
	n, err := queuedBytes(fd, unix.SIOCOUTQ)
	if err == backend.ErrUnsupported {
		return unsentSCTP(fd)
	}
	if n > 0 {
		const closed = 7 // TCP_CLOSE of include/net/tcp_states.h
		if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.State == closed {
			return 0, nil
		}
	}
	return n, err
}

// queuedBytes returns ErrUnsupported for what does not count them, as sockets of AF_VSOCK
// do not before Linux 6.17.
func queuedBytes(fd int, which uintptr) (int, error) {
	var v int32
	_, _, errno := syscall.RawSyscall(unix.SYS_IOCTL, uintptr(fd), which, uintptr(unsafe.Pointer(&v)))
	if errno == unix.ENOTTY || errno == unix.EOPNOTSUPP {
		return 0, backend.ErrUnsupported
	}
	return int(v), failed(errno)
}

// failed makes an error of an errno: nil for 0.
func failed(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
