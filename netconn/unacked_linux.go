package netconn

import (
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unacknowledged is how many bytes a socket's peer has not acknowledged; 0 if that
// cannot be known.
func unacknowledged(conn io.ReadWriteCloser) int {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // crypto/tls's
		conn = t.NetConn()
	}
	s, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	if err := raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		return 0
	}
	return n
}
