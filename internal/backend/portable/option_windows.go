package portable

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/weir-io/weir/internal/backend"
)

const (
	soError     = 0x1007     // SO_ERROR
	tcpKeepIdle = 3          // TCP_KEEPIDLE, from Windows 10 1709 on
	fionread    = 0x4004667f // FIONREAD
)

func getRaw(rc syscall.RawConn, o backend.Option) (v int, err error) {
	ctl := rc.Control(func(u uintptr) {
		s := windows.Handle(u)
		switch o {
		case backend.NoDelay:
			v, err = windows.GetsockoptInt(s, windows.IPPROTO_TCP, windows.TCP_NODELAY)
		case backend.KeepAlive:
			v, err = windows.GetsockoptInt(s, windows.SOL_SOCKET, windows.SO_KEEPALIVE)
			if err == nil && v != 0 {
				if idle, err := windows.GetsockoptInt(s, windows.IPPROTO_TCP, tcpKeepIdle); err == nil {
					v = idle
				}
			}
		case backend.SendBuffer:
			v, err = windows.GetsockoptInt(s, windows.SOL_SOCKET, windows.SO_SNDBUF)
		case backend.ReceiveBuffer:
			v, err = windows.GetsockoptInt(s, windows.SOL_SOCKET, windows.SO_RCVBUF)
		case backend.PendingError:
			v, err = windows.GetsockoptInt(s, windows.SOL_SOCKET, soError)
		case backend.UnreadBytes:
			var n, size uint32
			err = windows.WSAIoctl(s, fionread, nil, 0, (*byte)(unsafe.Pointer(&n)), uint32(unsafe.Sizeof(n)), &size, nil, 0)
			v = int(n)
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
	ctl := rc.Control(func(u uintptr) {
		switch o {
		case backend.SendBuffer:
			err = windows.SetsockoptInt(windows.Handle(u), windows.SOL_SOCKET, windows.SO_SNDBUF, value)
		case backend.ReceiveBuffer:
			err = windows.SetsockoptInt(windows.Handle(u), windows.SOL_SOCKET, windows.SO_RCVBUF, value)
		case backend.Broadcast:
			err = windows.SetsockoptInt(windows.Handle(u), windows.SOL_SOCKET, windows.SO_BROADCAST, min(value, 1))
		default:
			err = backend.ErrUnsupported
		}
	})
	if ctl != nil {
		return ctl
	}
	return err
}

func prepareListener(rc syscall.RawConn, spec *backend.Spec) error {
	if spec.ReusePort {
		return backend.ErrUnsupported // SO_REUSEADDR means something else here: a hijack
	}
	return prepareDialer(rc, spec)
}

func preparePacket(rc syscall.RawConn, spec *backend.Spec) error {
	if spec.ReusePort || spec.ReuseAddr {
		return backend.ErrUnsupported // SO_REUSEADDR means something else here: a hijack
	}
	return prepareDialer(rc, spec)
}

func prepareDialer(rc syscall.RawConn, spec *backend.Spec) error {
	for _, o := range spec.Options {
		if o.Option == backend.SendBuffer || o.Option == backend.ReceiveBuffer {
			if err := setRaw(rc, o.Option, o.Value); err != nil {
				return err
			}
		}
	}
	return nil
}
