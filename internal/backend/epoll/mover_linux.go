package epoll

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

var _ backend.Mover = (*Backend)(nil)

// moving is a connection that one backend accepted, on its way to another. No one else knows
// its descriptor, so what Adopt finds out about others need not be asked for, and it is not
// verified as they are.
type moving struct {
	fd    int
	flags flags
}

// Descriptor is for a backend of another kind.
func (m *moving) Descriptor() int { return m.fd }

// Close closes the connection.
func (m *moving) Close() error {
	sys.CloseAll(m.fd)
	return nil
}

// Detach gives up a connection that b accepted. It makes a system call only if the
// connection is in the kernel's set already.
func (b *Backend) Detach(h backend.Handle) (io.Closer, error) {
	s := b.table.find(h)
	switch {
	case s == nil:
		return nil, unix.EBADF
	case s.class != sys.Socket || s.flags&(foreign|raw|lost) != 0 || s.more != nil || !s.idle():
		return nil, backend.ErrUnsupported
	}
	m := &moving{fd: int(s.fd), flags: s.flags & (inet | ipv6 | edge)}
	b.drop(s)
	return m, nil
}

// AdoptConn makes a handle of what another backend of this kind gave up.
func (b *Backend) AdoptConn(conn any) (backend.Handle, error) {
	if b.ep < 0 {
		return backend.None, os.ErrClosed
	}
	m, ok := conn.(*moving)
	if !ok {
		return backend.None, backend.ErrUnsupported
	}
	s, err := b.take(m.fd, sys.Socket, m.flags)
	if err != nil {
		return backend.None, err
	}
	return backend.Handle(s.fd), nil
}
