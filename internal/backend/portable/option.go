package portable

import (
	"net"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// setOption sets an option of a connection by package net's methods, which exist on
// every platform, or by the system's if package net has none for it.
func setOption(conn any, o backend.Option, value int) error {
	switch o {
	case backend.NoDelay:
		if c, ok := conn.(interface{ SetNoDelay(bool) error }); ok {
			return c.SetNoDelay(value != 0)
		}
	case backend.KeepAlive:
		if c, ok := conn.(interface {
			SetKeepAliveConfig(net.KeepAliveConfig) error
		}); ok {
			return c.SetKeepAliveConfig(keepAlive(value))
		}
	case backend.SendBuffer:
		if c, ok := conn.(interface{ SetWriteBuffer(int) error }); ok {
			return c.SetWriteBuffer(value)
		}
	case backend.ReceiveBuffer:
		if c, ok := conn.(interface{ SetReadBuffer(int) error }); ok {
			return c.SetReadBuffer(value)
		}
	default:
		if rc := rawOf(conn); rc != nil {
			return setRaw(rc, o, value)
		}
	}
	return backend.ErrUnsupported
}

func keepAlive(value int) net.KeepAliveConfig {
	// A negative value leaves the system's default.
	c := net.KeepAliveConfig{Enable: value != 0, Idle: -1, Interval: -1, Count: -1}
	if value > 0 {
		c.Idle = time.Duration(value) * time.Second
		c.Interval = c.Idle
	}
	return c
}

// getOption asks the system.
func getOption(conn any, o backend.Option) (int, error) {
	if rc := rawOf(conn); rc != nil {
		return getRaw(rc, o)
	}
	return 0, backend.ErrUnsupported
}

// rawOf returns access to the system's socket below a connection of package net, or
// nil.
func rawOf(conn any) syscall.RawConn {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn, *net.UDPConn, *net.TCPListener, *net.UnixListener:
		if rc, err := conn.(syscall.Conn).SyscallConn(); err == nil {
			return rc
		}
	}
	return nil
}
