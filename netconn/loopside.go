package netconn

import (
	"cmp"
	"errors"
	"io"
	"net"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/inner"
)

// loopSide is a Conn as the loop sees it. All its methods run on the loop's
// goroutine.
type loopSide Conn

var (
	_ weir.EOFReceiver   = (*loopSide)(nil)
	_ weir.WritePauser   = (*loopSide)(nil)
	_ weir.WriteFailer   = (*loopSide)(nil)
	_ weir.ConnectFailer = (*loopSide)(nil)
	_ weir.Protocol      = (*loopSide)(nil)
)

func (c *loopSide) ConnectionMade(t weir.Transport) {
	c.t = t
	c.facts.Lock()
	c.local, c.remote, c.halfClose = t.LocalAddr(), t.RemoteAddr(), t.CanWriteEOF()
	c.facts.Unlock()
	close(c.made)
	if c.ready != nil {
		c.ready((*Conn)(c))
	}
	c.noticed()
}

func (c *loopSide) ConnectFailed(err *weir.ConnectError) { c.never(err) }

// never ends a Conn whose connection was never made. Any goroutine may call it
// once the loop is closed.
func (c *loopSide) never(err error) {
	c.facts.Lock()
	select {
	case <-c.made:
		c.facts.Unlock()
		return
	default:
	}
	c.failure = err
	close(c.made)
	c.facts.Unlock()
	c.over(err)
}

func (c *loopSide) DataReceived(p []byte) (int, error) {
	in := &c.in
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return len(p), nil // the transport is about to be closed
	}
	total := len(p)
	if in.dst != nil && in.got == 0 {
		in.got = copy(in.dst, p)
		p = p[in.got:]
		in.wake()
		inner.Of(c.loop).Readied()
	}
	p = p[in.q.put(p):]
	if len(p) > 0 {
		in.paused = true
		c.t.PauseReading()
	}
	return total - len(p), nil
}

// EOFReceived implements weir.EOFReceiver. Writing goes on until Close.
func (c *loopSide) EOFReceived(int) (bool, error) {
	c.in.stop(io.EOF)
	return true, nil
}

func (c *loopSide) PauseWriting() { c.full = true }

func (c *loopSide) ResumeWriting() {
	c.full = false
	c.flush()
}

// WriteFailed implements weir.WriteFailer: writers are told at once, while readers
// still get what was received before, and then the same error.
func (c *loopSide) WriteFailed(err error) {
	out := &c.out
	out.mu.Lock()
	out.stopLocked(err)
	out.release(c.pools)
	out.mu.Unlock()
}

func (c *loopSide) ConnectionLost(err error) {
	c.closed = true
	c.never(cmp.Or(err, weir.ErrClosed)) // only a layer can lose it without ConnectionMade
	c.over(err)
	c.t = nil
}

// over tells both directions at once that nothing more can come or go, so that they
// never contradict each other.
func (c *loopSide) over(err error) {
	gone := err
	if err == nil {
		err, gone = io.EOF, net.ErrClosed
	}
	in, out := &c.in, &c.out
	in.mu.Lock()
	out.mu.Lock()
	in.stopLocked(err)
	out.stopLocked(gone)
	out.release(c.pools)
	out.mu.Unlock()
	in.mu.Unlock()
}

// stop records why nothing more can come or go; the first reason stays.
func (h *half) stop(err error) {
	h.mu.Lock()
	h.stopLocked(err)
	h.mu.Unlock()
}

func (h *half) stopLocked(err error) {
	if h.err == nil {
		h.err = err
	}
	h.wake()
}

// release drops what is left in the outbox.
func (out *outbox) release(pools *pools) {
	if out.buf != nil {
		pools.put(out.buf)
	}
	out.buf, out.n = nil, 0
}

// noticed does what goroutines asked for since it last ran.
func (c *loopSide) noticed() {
	if c.t == nil || c.closed {
		return
	}
	c.in.mu.Lock()
	resume := c.in.resume
	if resume {
		c.in.resume, c.in.paused = false, false
	}
	c.in.mu.Unlock()
	if resume {
		c.t.ResumeReading()
	}
	c.flush()
}

// flush hands the outbox to the transport, unless that has enough, and then carries out
// the requested ends. After Close it hands over what is left, which is bounded.
func (c *loopSide) flush() {
	out := &c.out
	out.mu.Lock()
	for !c.closed && out.n > 0 && !out.abort && (!c.full || out.closed) {
		buf, n := out.buf, out.n
		out.buf, out.n = nil, 0
		if out.waiters > 0 {
			out.wake()
			inner.Of(c.loop).Readied()
		}
		out.mu.Unlock()
		_, err := c.t.Write(buf[:n])
		c.pools.put(buf)
		if err != nil && !errors.Is(err, weir.ErrClosed) {
			out.stop(err) // such as ErrNotWritable; a lost connection reports that itself
		}
		out.mu.Lock()
	}
	left, end, closed, abort, reset := out.n > 0, out.end, out.closed, out.abort, out.reset
	out.mu.Unlock()
	switch {
	case c.closed:
	case abort:
		c.closed = true
		c.t.Abort()
	case closed && reset:
		c.closed = true
		if t, ok := weir.As[weir.Resetter](c.t); ok {
			t.Reset()
		} else {
			c.t.Abort()
		}
	case closed:
		c.closed = true
		_ = c.t.Close()
	case end && !left && !c.ended:
		c.ended = true
		_ = c.t.WriteEOF()
	}
}
