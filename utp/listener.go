package utp

import (
	"errors"
	"net"

	"github.com/weir-io/weir"
)

// Listener takes connections of an endpoint. Its methods belong to the loop's
// goroutine.
type Listener struct {
	ep      *Endpoint
	factory weir.Factory
	owns    bool // the endpoint ends with it

	conns    int // transports that are not lost
	accepted int
	refused  int
	closed   bool
	onDone   []func()
}

// ErrListening is returned for a second listener of one endpoint.
var ErrListening = errors.New("utp: the endpoint has a listener already")

// Listen takes the connections that come to the endpoint; f makes the protocol of
// each. An endpoint has one listener at a time: ErrListening.
func (e *Endpoint) Listen(f weir.Factory) (*Listener, error) {
	switch {
	case e.lost || e.closing:
		return nil, weir.ErrClosed
	case e.loopEnds:
		return nil, weir.ErrLoopClosed
	case e.listener != nil:
		return nil, ErrListening
	}
	e.listener = &Listener{ep: e, factory: f}
	return e.listener, nil
}

// Listen opens an endpoint, as Open does, that takes connections until the listener is
// closed.
func Listen(l *weir.Loop, network, address string, f weir.Factory, cfg Config, opts ...weir.Option) (*Listener, error) {
	e, err := Open(l, network, address, cfg, opts...)
	if err != nil {
		return nil, err
	}
	ln, err := e.Listen(f)
	if err != nil {
		e.Abort()
		return nil, err
	}
	ln.owns = true
	return ln, nil
}

// Addr is where it listens.
func (ln *Listener) Addr() net.Addr { return Addr{ln.ep.local()} }

// Endpoint is the endpoint whose connections it takes.
func (ln *Listener) Endpoint() *Endpoint { return ln.ep }

// Conns is how many of its connections are open.
func (ln *Listener) Conns() int { return ln.conns }

// Refused is how many connections were refused because of a bound.
func (ln *Listener) Refused() int { return ln.refused }

// Close takes no more connections; those that are open stay. It always returns nil.
func (ln *Listener) Close() error {
	if ln.closed {
		return nil
	}
	ln.closed = true
	if ln.ep.listener == ln {
		ln.ep.listener = nil
	}
	if ln.owns {
		ln.ep.Close()
	}
	ln.checkDone()
	return nil
}

// OnDone calls f from the loop's queue once the listener is closed and its connections
// are gone.
func (ln *Listener) OnDone(f func()) {
	ln.onDone = append(ln.onDone, f)
	ln.checkDone()
}

func (ln *Listener) checkDone() {
	if !ln.closed || ln.conns > 0 {
		return
	}
	for _, f := range ln.onDone {
		ln.ep.loop.Soon(f)
	}
	ln.onDone = nil
}
