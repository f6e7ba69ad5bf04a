package sim

import (
	"io"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

var _ backend.Mover = (*Backend)(nil)

// moving is a connection that no loop has, on its way from one of the host's to another.
type moving struct{ s *socket }

// Close closes the connection where it is, unless it is closed already: its number may then be
// another's.
func (m *moving) Close() error {
	if m.s.host.bare(int(m.s.h)) == m.s {
		m.s.host.CloseDescriptor(int(m.s.h))
	}
	return nil
}

// Detach takes a connection from b, for another loop of the host.
func (b *Backend) Detach(h backend.Handle) (io.Closer, error) {
	b.w.drain()
	s, err := b.socket(h)
	if err != nil {
		return nil, err
	}
	for p := range s.ops {
		if s.ops[p] != nil {
			return nil, syscall.EBUSY
		}
	}
	b.w.record(ShutCall, b.host, s.id, int64(backend.Forget), 0)
	s.abandon()
	s.be = nil
	return &moving{s}, nil
}

// AdoptConn gives b what Detach returned. It fails with EBADF if the connection is closed,
// or of another host.
func (b *Backend) AdoptConn(conn any) (backend.Handle, error) {
	if err := b.unusable(); err != nil {
		return backend.None, err
	}
	m, ok := conn.(*moving)
	if !ok {
		return backend.None, backend.ErrUnsupported
	}
	if b.host.bare(int(m.s.h)) != m.s {
		return backend.None, syscall.EBADF
	}
	m.s.be = b
	m.s.kick()
	return m.s.h, nil
}
