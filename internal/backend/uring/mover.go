//go:build linux

package uring

import (
	"io"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

var _ backend.Mover = (*Backend)(nil)

// moving is a connection that one backend accepted, on its way to another.
type moving struct{ fd int }

// Descriptor is for a backend of another kind.
func (m *moving) Descriptor() int { return m.fd }

// Close closes the connection.
func (m *moving) Close() error {
	sys.CloseAll(m.fd)
	return nil
}

// Detach gives up a connection that b accepted, without a system call.
func (b *Backend) Detach(h backend.Handle) (io.Closer, error) {
	switch {
	case b.class(h) == notOpen:
		return nil, syscall.EBADF
	case b.class(h) != socket || b.handles[h].busy != 0:
		return nil, backend.ErrUnsupported
	}
	if _, adopted := b.verifier.at[h]; adopted {
		return nil, backend.ErrUnsupported
	}
	b.forget(h)
	return &moving{int(h)}, nil
}

// AdoptConn makes a handle of what another backend of this kind gave up.
func (b *Backend) AdoptConn(conn any) (backend.Handle, error) {
	if b.closed {
		return backend.None, errClosed
	}
	m, ok := conn.(*moving)
	if !ok {
		return backend.None, backend.ErrUnsupported
	}
	if h := backend.Handle(m.fd); b.class(h) != notOpen {
		b.lose(h) // it was closed behind our back
	}
	return b.opened(m.fd, socket, nil), nil
}
