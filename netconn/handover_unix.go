//go:build unix

package netconn

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/weir-io/weir"
	"golang.org/x/sys/unix"
)

// handOver gives the loop a duplicate of a socket's descriptor and closes the original.
// On an error conn is left as it was.
func handOver(l *weir.Loop, conn io.ReadWriteCloser, f weir.Factory, opts []weir.StreamOption) (weir.Transport, error) {
	switch c := conn.(type) {
	case *net.TCPConn:
	case *net.UnixConn:
		if c.LocalAddr().Network() != "unix" {
			return nil, errNotHanded // messages, not a stream
		}
	default:
		return nil, errNotHanded
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var errno error
	if err := raw.Control(func(original uintptr) { fd, errno = dup(int(original)) }); err != nil {
		return nil, err
	}
	if errno != nil {
		return nil, os.NewSyscallError("dup", errno)
	}
	// The transport gets the duplicate before the original is gone, so that a loop that
	// takes no descriptors leaves things as they were.
	t, err := l.Attach(fd, conn.(net.Conn).RemoteAddr().String(), f, opts...)
	switch {
	case err == nil, errors.Is(err, weir.ErrClosed):
		_ = conn.Close()
	default:
		_ = syscall.Close(fd)
		if errors.Is(err, weir.ErrNotDescriptors) {
			err = errNotHanded
		}
	}
	return t, err
}

// dup duplicates a descriptor, close-on-exec, without syscall.ForkLock, which a fork
// holds until the program has been read from its disk: the caller is on a loop.
func dup(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
}
