//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package portable

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// Adopt takes over a descriptor: a socket, connected or listening, or anything that can
// be read or written. It serves a duplicate and closes fd with it, so that Forget can
// give fd back. Sockets become non-blocking; the flags of other descriptors, which
// other processes may share, stay as they are, and if such a descriptor blocks, a
// goroutine waits in the call.
func (b *Backend) Adopt(fd int) (backend.Handle, error) {
	if b.closed {
		return backend.None, errClosed
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return backend.None, err
	}
	mode, err := unix.FcntlInt(uintptr(own), unix.F_GETFL, 0)
	if err != nil {
		_ = unix.Close(own)
		return backend.None, err
	}
	mode &= unix.O_ACCMODE
	var st unix.Stat_t
	if err := unix.Fstat(own, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		_ = unix.Close(own)
		return backend.None, unix.EISDIR
	}
	still, err := sameFile(fd)
	if err != nil {
		_ = unix.Close(own)
		return backend.None, err
	}
	conn, err := open(own, "fd "+strconv.Itoa(fd))
	if err != nil {
		return backend.None, errno(err)
	}
	unix.CloseOnExec(fd)
	also := func() { _ = unix.Close(fd) }
	if ln, ok := conn.(net.Listener); ok {
		e := &entry{local: addrOf(ln.Addr()), adopted: true, still: still}
		e.ln = newAcceptor(b, e, ln)
		e.ln.also = also
		return b.add(e), nil
	}
	e := b.connected(conn.(io.ReadWriteCloser))
	e.adopted, e.still = true, still
	switch p := e.port.(type) {
	case *polled:
		p.fd = fd
	case *blocking:
		p.also = also
		p.noRead, p.noWrite = mode == unix.O_WRONLY, mode == unix.O_RDONLY
	case *plain:
		p.also = also
	}
	return b.add(e), nil
}

// Control calls f with the descriptor behind h; see backend.DescriptorLender.
func (b *Backend) Control(h backend.Handle, f func(fd int)) error {
	e := b.entry(h)
	if e == nil {
		return errBadHandle
	}
	p, ok := e.port.(*polled)
	if !ok {
		return backend.ErrUnsupported
	}
	return p.raw.Control(func(fd uintptr) { f(int(fd)) })
}

// sameFile returns a function that reports whether fd is still open and still refers to
// the same file.
func sameFile(fd int) (func() bool, error) {
	var was unix.Stat_t
	if err := unix.Fstat(fd, &was); err != nil {
		return nil, err
	}
	return func() bool {
		var is unix.Stat_t
		return unix.Fstat(fd, &is) == nil && is.Dev == was.Dev && is.Ino == was.Ino
	}, nil
}

// open turns a descriptor into the value that package net or package os has for it. The
// descriptor is used up.
func open(fd int, name string) (any, error) {
	f := os.NewFile(uintptr(fd), name)
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	switch {
	case errors.Is(err, syscall.ENOTSOCK):
		return f, nil
	case err != nil:
		_ = f.Close()
		return nil, err
	}
	defer func() { _ = f.Close() }() // package net makes its own copy
	if listening != 0 {
		return net.FileListener(f)
	}
	return net.FileConn(f)
}
