//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package portable

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

func getRaw(rc syscall.RawConn, o backend.Option) (v int, err error) {
	ctl := rc.Control(func(u uintptr) {
		fd := int(u)
		switch o {
		case backend.NoDelay:
			v, err = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY)
			if v != 0 {
				v = 1 // the flag's own bit on some systems
			}
		case backend.KeepAlive:
			v, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			if err == nil && v != 0 {
				if v, err = keepIdle(fd); err != nil {
					v, err = 1, nil // no idle time on this kind of socket
				}
			}
		case backend.SendBuffer:
			v, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		case backend.ReceiveBuffer:
			v, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		case backend.PendingError:
			v, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		case backend.UnsentBytes:
			v, err = unsentBytes(fd)
		case backend.UnreadBytes:
			v, err = unreadBytes(fd)
		case backend.UserTimeout:
			v, err = userTimeout(fd)
		case backend.Unanswered:
			v, err = unanswered(fd)
		case backend.Patience:
			v, err = patience(fd)
		case backend.Broadcast:
			if v, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST); v != 0 {
				v = 1
			}
		default:
			err = backend.ErrUnsupported
		}
	})
	if ctl != nil {
		return 0, ctl
	}
	return v, err
}

func setRaw(rc syscall.RawConn, o backend.Option, value int) (err error) {
	ctl := rc.Control(func(fd uintptr) {
		switch o {
		case backend.SendBuffer:
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, value)
		case backend.ReceiveBuffer:
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, value)
		case backend.UserTimeout:
			err = setUserTimeout(int(fd), value)
		case backend.DontFragment, backend.MulticastHops, backend.MulticastLoop:
			err = setLinux(int(fd), o, value)
		case backend.Broadcast:
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, min(value, 1))
		default:
			err = backend.ErrUnsupported
		}
	})
	if ctl != nil {
		return ctl
	}
	return err
}

// prepareListener does what must be done before bind.
func prepareListener(rc syscall.RawConn, spec *backend.Spec) (err error) {
	if err := setBuffers(rc, spec); err != nil {
		return err
	}
	ctl := rc.Control(func(fd uintptr) {
		if spec.ReusePort {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
		narrow(int(fd), spec)
	})
	if ctl != nil {
		return ctl
	}
	return err
}

// narrow gives a UNIX socket its mode before bind. On Linux the file gets the socket's
// mode less the umask, so it is never wider than asked. Elsewhere this fails, and the mode
// is set just after bind.
func narrow(fd int, spec *backend.Spec) {
	if spec.Family == backend.Unix && spec.Mode != 0 {
		_ = unix.Fchmod(fd, uint32(fs.FileMode(spec.Mode).Perm()))
	}
}

// preparePacket does what must be done before a datagram socket is bound.
func preparePacket(rc syscall.RawConn, spec *backend.Spec) (err error) {
	if err := setBuffers(rc, spec); err != nil {
		return err
	}
	ctl := rc.Control(func(fd uintptr) {
		prepareInfo(int(fd), spec)
		narrow(int(fd), spec)
		if spec.Family == backend.Unix && spec.Peer.Family == backend.Unix && spec.Bind && spec.Local.Path == "" && linuxOptions {
			err = unix.Bind(int(fd), &unix.SockaddrUnix{}) // to a name of the system's choice
		}
		if spec.ReuseAddr {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if err == nil && spec.ReusePort {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}
	})
	if ctl != nil {
		return ctl
	}
	return err
}

// prepareDialer does what must be done before connect.
func prepareDialer(rc syscall.RawConn, spec *backend.Spec) error { return setBuffers(rc, spec) }

// setBuffers sets the buffer sizes, which have to be known before the first segment
// offers a window, and what only datagram sockets have.
func setBuffers(rc syscall.RawConn, spec *backend.Spec) error {
	for _, o := range spec.Options {
		switch o.Option { //nolint:exhaustive // the others are set later, or by package net
		case backend.SendBuffer, backend.ReceiveBuffer, backend.DontFragment, backend.MulticastHops, backend.MulticastLoop:
			if err := setRaw(rc, o.Option, o.Value); err != nil {
				return err
			}
		}
	}
	return nil
}
