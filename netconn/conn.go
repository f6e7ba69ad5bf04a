package netconn

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/weir-io/weir"
)

// Conn is a transport as a net.Conn. Its methods are safe from any goroutine;
// those that wait (Read, Write, Made) must not be called on the loop's.
//
// Write returns when the bytes are in the outbox, which is bounded; later calls report
// what happens to them, as with a socket. Errors are *net.OpError, except io.EOF.
type Conn struct {
	loop   *weir.Loop
	notice *weir.Notifier
	pools  *pools

	in  inbox
	out outbox

	made    chan struct{} // closed when the connection is made or never will be
	watched sync.Once     // see watch

	// These belong to the loop's goroutine.
	t      weir.Transport // nil unless connected
	ready  func(*Conn)    // called when the connection is made, if there is one
	full   bool           // the transport asked to write no more
	ended  bool           // WriteEOF was called
	closed bool           // Close or Abort was called, or the connection is lost

	facts         sync.Mutex // guards what follows
	local, remote net.Addr
	unwatch       func() // ends what watch began, if anything
	halfClose     bool   // the transport can end writing alone
	failure       error  // why the connection was never made
}

var _ net.Conn = (*Conn)(nil)

// unconnected is the address of a Conn that is not connected.
var unconnected net.Addr = &weir.FileAddr{Net: "conn", Name: "not connected"}

// inbox holds the bytes received and not yet read.
type inbox struct {
	half
	q      fifo
	dst    []byte // a waiting reader's memory: bytes go there directly
	got    int    // how many went there
	paused bool   // the transport was told to pause, since q was full
	resume bool   // and is to resume
}

// outbox holds the bytes written and not yet handed to the transport.
type outbox struct {
	half
	buf   []byte // from the pools; nil while empty
	n     int    // how much of it is used
	end   bool   // CloseWrite was called
	abort bool   // Abort was called
	reset bool   // Reset was called
}

// New makes a Conn that has no transport yet. Its Protocol goes to whatever
// makes connections on l: Loop.Connect, or the top of a stack of layers.
func New(l *weir.Loop) *Conn { return newConn(l, new(pools)) }

func newConn(l *weir.Loop, p *pools) *Conn {
	c := &Conn{loop: l, pools: p, made: make(chan struct{})}
	c.notice = l.NewNotifier((*loopSide)(c).noticed)
	c.in.changed.L, c.out.changed.L = &c.in.mu, &c.out.mu
	c.in.q.pools = p
	c.local, c.remote = unconnected, unconnected
	return c
}

// Take makes a Conn of a transport that is connected: from now on what t receives, any
// bytes kept included, is for the Conn's readers. The protocol that it had gets no
// ConnectionLost, and a pause of reading that it asked for ends. Only the loop's
// goroutine may call it.
func Take(t weir.Transport) *Conn {
	c := New(t.Loop())
	t.SetProtocol(c.Protocol())
	t.ResumeReading()
	(*loopSide)(c).ConnectionMade(t)
	return c
}

// Protocol is the Conn as the loop sees it. It is for one connection.
func (c *Conn) Protocol() weir.Protocol { return (*loopSide)(c) }

// Loop is the loop of the transport.
func (c *Conn) Loop() *weir.Loop { return c.loop }

// Made waits for the connection to be made. It returns the reason if it never will be
// (a *weir.ConnectError, what a layer lost it with, or weir.ErrLoopClosed if the loop
// was closed first), or ctx's error.
func (c *Conn) Made(ctx context.Context) error {
	select {
	case <-c.made: // no wait
	default:
		if err := c.loop.MayWait("netconn.Conn.Made"); err != nil {
			return err
		}
	}
	select {
	case <-c.made:
	case <-c.loop.Closed():
		(*loopSide)(c).never(weir.ErrLoopClosed)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.facts.Lock()
	defer c.facts.Unlock()
	return c.failure
}

// Read implements net.Conn. At the peer's end of stream, and after a loss
// without an error, it returns io.EOF.
func (c *Conn) Read(p []byte) (int, error) {
	in := &c.in
	in.mu.Lock()
	n, err := c.read(p)
	resume := in.paused && !in.resume && in.q.n <= largeSize/2
	if resume {
		in.resume = true
	}
	in.mu.Unlock()
	if resume {
		c.notify()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = c.opError("read", err)
	}
	return n, err
}

func (c *Conn) read(p []byte) (int, error) {
	in := &c.in
	for in.busy {
		if err := in.ended(); err != nil {
			return 0, err
		}
		if err := c.loop.MayWait("netconn.Conn.Read"); err != nil {
			return 0, err
		}
		in.wait()
	}
	if err := in.ended(); err != nil {
		return 0, err
	}
	switch {
	case in.q.n > 0:
		return in.q.take(p), nil
	case in.err != nil:
		return 0, in.err
	case len(p) == 0:
		return 0, nil
	}
	if err := c.loop.MayWait("netconn.Conn.Read"); err != nil {
		return 0, err
	}
	in.busy, in.dst, in.got = true, p, 0
	c.watch()
	for in.got == 0 && in.err == nil && in.ended() == nil {
		in.wait()
	}
	n := in.got
	in.busy, in.dst, in.got = false, nil, 0
	in.wake()
	if n > 0 {
		return n, nil
	}
	if err := in.ended(); err != nil {
		return 0, err
	}
	return 0, in.err
}

// Write implements net.Conn. It waits while the outbox is full, which means that the
// transport has more than its high mark buffered and 64 KiB more have been written.
// Several writes at once do not interleave.
func (c *Conn) Write(p []byte) (int, error) {
	out := &c.out
	out.mu.Lock()
	n, err := c.write(out, p)
	out.mu.Unlock()
	if n > 0 {
		c.notify()
	}
	if err != nil {
		err = c.opError("write", err)
	}
	return n, err
}

func (c *Conn) write(out *outbox, p []byte) (int, error) {
	for out.busy {
		if err := out.ended(); err != nil {
			return 0, err
		}
		if err := c.loop.MayWait("netconn.Conn.Write"); err != nil {
			return 0, err
		}
		out.wait()
	}
	out.busy = true
	defer func() {
		out.busy = false
		out.wake()
	}()
	total := 0
	for {
		if err := out.ended(); err != nil {
			return total, err
		}
		if out.end {
			return total, weir.ErrWriteAfterEOF
		}
		if out.err != nil {
			return total, out.err
		}
		n := out.put(p, c.pools)
		total, p = total+n, p[n:]
		if len(p) == 0 {
			return total, nil
		}
		c.notify()
		if err := c.loop.MayWait("netconn.Conn.Write"); err != nil {
			return total, err
		}
		c.watch()
		out.wait()
	}
}

// watch is called before a wait. Until the connection is made, the loop's end may be
// the only event to come; watch makes it wake those that wait.
func (c *Conn) watch() {
	select {
	case <-c.made:
		return
	default:
	}
	c.watched.Do(func() {
		ctx, cancel := context.WithCancel(context.Background())
		c.facts.Lock()
		c.unwatch = cancel
		c.facts.Unlock()
		go func() {
			defer cancel()
			_ = c.Made(ctx) // those that wait are woken
		}()
	})
}

// put appends as much of p as there is room for and returns how much that was.
func (out *outbox) put(p []byte, pools *pools) int {
	if len(p) == 0 {
		return 0
	}
	if need := out.n + len(p); out.buf == nil {
		out.buf = pools.get(need > smallSize)
	} else if need > len(out.buf) && len(out.buf) < largeSize {
		bigger := pools.get(true)
		copy(bigger, out.buf[:out.n])
		pools.put(out.buf)
		out.buf = bigger
	}
	n := copy(out.buf[out.n:], p)
	out.n += n
	return n
}

// CloseWrite sends the end of the stream after everything written; reading goes on. The
// error is weir.ErrNoHalfClose if the transport cannot do so, which CanCloseWrite tells
// beforehand. Calling it again has no effect.
func (c *Conn) CloseWrite() error {
	if !c.CanCloseWrite() {
		return c.opError("close", weir.ErrNoHalfClose)
	}
	c.out.mu.Lock()
	var err error
	switch {
	case c.out.closed:
		err = net.ErrClosed
	case c.out.err != nil && !c.out.end:
		err = c.out.err
	default:
		c.out.end = true
	}
	c.out.mu.Unlock()
	if err != nil {
		return c.opError("close", err)
	}
	c.notify()
	return nil
}

// CanCloseWrite reports whether CloseWrite can work. It is false before the
// connection is made.
func (c *Conn) CanCloseWrite() bool {
	c.facts.Lock()
	defer c.facts.Unlock()
	return c.halfClose
}

// Close implements net.Conn. What was written is still sent; calls in progress
// and later ones fail with net.ErrClosed. It does not wait.
func (c *Conn) Close() error { return c.end(false) }

// Abort closes and drops what was not sent; if the network can express it (TCP), the
// peer sees a reset.
func (c *Conn) Abort() { _ = c.end(true) }

// Reset closes as Close does, and what was written is still sent, but the peer must not
// mistake the end for a clean one: see weir.Resetter. After Close it does nothing.
func (c *Conn) Reset() {
	c.out.mu.Lock()
	c.out.reset = !c.out.closed
	c.out.mu.Unlock()
	_ = c.end(false)
}

func (c *Conn) end(abort bool) error {
	c.in.mu.Lock()
	first := c.in.close()
	c.in.q.drop()
	c.in.mu.Unlock()
	c.out.mu.Lock()
	c.out.close()
	c.out.abort = c.out.abort || abort
	c.out.mu.Unlock()
	c.facts.Lock()
	unwatch := c.unwatch
	c.facts.Unlock()
	if unwatch != nil {
		unwatch()
	}
	if !first && !abort {
		return c.opError("close", net.ErrClosed)
	}
	c.notify()
	return nil
}

// SetDeadline sets both deadlines; the zero time is none. A call that waits fails with
// os.ErrDeadlineExceeded at that time.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets the deadline of Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.in.half, t) }

// SetWriteDeadline sets the deadline of Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.out.half, t) }

func (c *Conn) setDeadline(h *half, t time.Time) error {
	if err := h.setDeadline(t); err != nil {
		return c.opError("set", err)
	}
	return nil
}

// LocalAddr implements net.Conn. Before the connection is made it returns a
// *weir.FileAddr that says so.
func (c *Conn) LocalAddr() net.Addr {
	c.facts.Lock()
	defer c.facts.Unlock()
	return c.local
}

// RemoteAddr implements net.Conn; see LocalAddr.
func (c *Conn) RemoteAddr() net.Addr {
	c.facts.Lock()
	defer c.facts.Unlock()
	return c.remote
}

// notify makes the loop look at the connection. If the loop is closed there is nothing
// to tell it: the connection is lost.
func (c *Conn) notify() { _ = c.notice.Notify() }

// opError makes err a *net.OpError, unless it is one.
func (c *Conn) opError(op string, err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return err
	}
	local := c.LocalAddr()
	return &net.OpError{Op: op, Net: local.Network(), Source: local, Addr: c.RemoteAddr(), Err: err}
}
