package weir

import (
	"errors"
	"sync"

	"github.com/weir-io/weir/internal/backend"
)

// packetSocket is an endpoint's socket as other goroutines may use it: it is not
// closed while one of them does.
type packetSocket struct {
	mu     sync.Mutex
	of     backend.Socket // nil: there is no access
	closed bool
}

// shut runs f, which closes the socket.
func (s *packetSocket) shut(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	f()
}

// bottom is the endpoint with a socket below all layers; nil if there is none.
func (e *PacketEndpoint) bottom() *PacketEndpoint {
	for e != nil && e.feed != nil {
		e = e.feed.below
	}
	return e
}

// access calls f with the socket below the endpoint.
func (e *PacketEndpoint) access(f func(backend.Socket) error) error {
	e = e.bottom()
	if e == nil {
		return errors.ErrUnsupported
	}
	e.sock.mu.Lock()
	defer e.sock.mu.Unlock()
	switch {
	case e.sock.closed:
		return ErrClosed
	case e.sock.of == nil:
		return errors.ErrUnsupported
	}
	return f(e.sock.of)
}

// Control calls f with the descriptor of the endpoint's socket, for options that weir
// has no name for. f must not close, read or write it, nor keep it, and must call no
// method of the endpoint: the loop waits for f when it closes the socket. Any goroutine
// may call Control. After the close it returns ErrClosed; errors.ErrUnsupported if there
// is no descriptor (in the simulator, and over a carrier that is above no endpoint).
func (e *PacketEndpoint) Control(f func(fd uintptr)) error {
	return e.access(func(s backend.Socket) error { return s.Control(f) })
}

// SetReadBuffer sets how many bytes of datagrams the system keeps for the endpoint
// (SO_RCVBUF; the system may round it, and bound it without an error). Any goroutine may
// call it. Errors are those of Control, or the system's.
func (e *PacketEndpoint) SetReadBuffer(bytes int) error {
	return e.setBuffer("SetReadBuffer", backend.ReceiveBuffer, bytes)
}

// SetWriteBuffer sets how many bytes of datagrams the system takes before they have left
// (SO_SNDBUF), as SetReadBuffer does.
func (e *PacketEndpoint) SetWriteBuffer(bytes int) error {
	return e.setBuffer("SetWriteBuffer", backend.SendBuffer, bytes)
}

func (e *PacketEndpoint) setBuffer(name string, o backend.Option, bytes int) error {
	var c connConfig
	if c.number(name, new(int), bytes, 1, maxBuffer); c.err != nil {
		return c.err
	}
	return e.access(func(s backend.Socket) error { return sysError("setsockopt", s.SetOption(o, bytes)) })
}
