package netconn

import (
	"net"
	"sync"

	"github.com/weir-io/weir"
)

// backlog is how many connections wait for Accept before the listener pauses
// and leaves further ones to the system's queue.
const backlog = 128

// Listener is a weir.Listener as a net.Listener. Its methods are safe from any
// goroutine; Accept must not be called on the loop's.
type Listener struct {
	loop   *weir.Loop
	addr   net.Addr
	ln     *weir.Listener
	notice *weir.Notifier
	pools  pools

	mu     sync.Mutex
	some   sync.Cond // the queue or closed changed; L is &mu
	queue  []*Conn
	closed bool
	ended  bool // the weir.Listener was closed, by its loop's end or otherwise
	paused bool
}

var _ net.Listener = (*Listener)(nil)

// Listen is Loop.Listen with a net.Listener for the connections. It belongs to the
// loop's goroutine, or to any goroutine while the loop does not run; see Call.
func Listen(l *weir.Loop, network, address string, opts ...weir.ListenOption) (*Listener, error) {
	return NewListener(l, func(f weir.Factory) (*weir.Listener, error) {
		return l.Listen(network, address, f, opts...)
	})
}

// NewListener makes a net.Listener of whatever listen listens to. The factory that
// listen is given makes the top of each connection; layers may wrap it. NewListener may
// be called wherever listen may, as with Listen.
func NewListener(l *weir.Loop, listen func(weir.Factory) (*weir.Listener, error)) (*Listener, error) {
	ln := &Listener{loop: l}
	ln.some.L = &ln.mu
	ln.notice = l.NewNotifier(ln.noticed)
	wl, err := listen(ln.factory)
	if err != nil {
		return nil, err
	}
	ln.ln, ln.addr = wl, wl.Addr()
	wl.OnClosed(ln.over)
	return ln, nil
}

// over tells Accept that no more connections come.
func (ln *Listener) over() {
	ln.mu.Lock()
	ln.ended = true
	ln.some.Broadcast()
	ln.mu.Unlock()
}

func (ln *Listener) factory(t weir.Transport) weir.Protocol {
	c := newConn(t.Loop(), &ln.pools)
	c.ready = ln.ready
	return (*loopSide)(c)
}

// ready queues a connection that was made. It runs on the goroutine of that
// connection's loop, which in a group need not be the listener's.
func (ln *Listener) ready(c *Conn) {
	ln.mu.Lock()
	closed := ln.closed || ln.ended
	full := false
	if !closed {
		ln.queue = append(ln.queue, c)
		full = len(ln.queue) >= backlog && !ln.paused
		if full {
			ln.paused = true
		}
		ln.some.Signal()
	}
	ln.mu.Unlock()
	if closed {
		c.Abort()
	}
	if full {
		_ = ln.notice.Notify()
	}
}

// noticed brings the listener in line with what was asked of it.
func (ln *Listener) noticed() {
	ln.mu.Lock()
	closed, paused := ln.closed, ln.paused
	ln.mu.Unlock()
	switch {
	case closed:
		_ = ln.ln.Close()
	case paused:
		ln.ln.Pause()
	default:
		ln.ln.Resume()
	}
}

// Accept implements net.Listener. It waits for a connection that is fully made,
// including the handshakes of any layers. A *net.OpError with net.ErrClosed ends it:
// after Close, or once the loop has closed the listener and the connections that were
// made before have been handed out.
func (ln *Listener) Accept() (net.Conn, error) {
	ln.mu.Lock()
	for len(ln.queue) == 0 && !ln.closed && !ln.ended {
		if err := ln.loop.MayWait("netconn.Listener.Accept"); err != nil {
			ln.mu.Unlock()
			return nil, err
		}
		ln.some.Wait()
	}
	if len(ln.queue) == 0 { // after Close it stays empty
		ln.mu.Unlock()
		return nil, ln.opError("accept")
	}
	c := ln.queue[0]
	ln.queue[0] = nil
	ln.queue = ln.queue[1:]
	resume := ln.paused && len(ln.queue) <= backlog/2
	if resume {
		ln.paused = false
	}
	ln.mu.Unlock()
	if resume {
		_ = ln.notice.Notify()
	}
	return c, nil
}

// Close implements net.Listener. Connections that no one accepted are aborted; the
// others stay.
func (ln *Listener) Close() error {
	ln.mu.Lock()
	again := ln.closed
	ln.closed = true
	queue := ln.queue
	ln.queue = nil
	ln.some.Broadcast()
	ln.mu.Unlock()
	if again {
		return ln.opError("close")
	}
	for _, c := range queue {
		c.Abort()
	}
	_ = ln.notice.Notify()
	return nil
}

// Addr is where it listens.
func (ln *Listener) Addr() net.Addr { return ln.addr }

func (ln *Listener) opError(op string) error {
	return &net.OpError{Op: op, Net: ln.addr.Network(), Addr: ln.addr, Err: net.ErrClosed}
}
