package weir

import (
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// How long a closed connection may linger, for the peer's sake.
const (
	lingerIdle  = 5 * time.Second
	lingerTotal = 30 * time.Second
)

// lingerBytes is how much a lingering connection reads and drops: a peer that sends
// more is not waiting for a reply, and must learn that its bytes are lost.
const lingerBytes = 64 << 20

// lingerer keeps a socket open after the transport above it has closed. A socket that
// is closed with bytes unread, or that gets bytes after it was closed, answers with a
// reset, and a reset makes the peer lose what it has not yet read. So the end of
// writing is sent, and what the peer still sends is read and dropped until it ends its
// stream or the time is up.
type lingerer struct {
	loop   *Loop
	op     backend.Op
	timer  *Timer
	until  time.Time
	ending bool
	read   int           // bytes dropped
	eof    bool          // the peer has ended its stream
	resets bool          // it ends with a reset, when unsent is 0
	unsent int           // bytes the peer has not acknowledged
	wait   time.Duration // until the next look
	at     int           // in the loop's bag
}

var _ backend.Owner = (*lingerer)(nil)

// linger takes over h, whose write buffer is empty and from which nothing reads.
func linger(l *Loop, h backend.Handle, ended bool) {
	if !ended {
		if err := l.be.Shut(h, backend.ShutWrite); err != nil {
			l.shutHandle(h, backend.CloseFlat) // reset already
			return
		}
	}
	g := &lingerer{loop: l, until: l.Now().Add(lingerTotal)}
	g.op.Owner = g
	g.op.Handle = h
	l.lingerers.Add(g, &g.at)
	g.timer = l.NewTimer(g.end)
	g.timer.Set(lingerIdle)
	g.next()
}

// resetPatience is how long a connection that ends with a reset waits for a peer
// that takes nothing of what was written.
const resetPatience = 30 * time.Second

// How often to check whether the peer has acknowledged everything: no system reports
// it.
const (
	resetLookFirst = time.Millisecond
	resetLookMost  = 50 * time.Millisecond
)

// lingerReset takes over h, whose write buffer is empty, while the system has unsent
// bytes of it, and resets the connection when the peer has all of them. An earlier
// reset would discard them.
func lingerReset(l *Loop, h backend.Handle, unsent int) {
	g := &lingerer{loop: l, resets: true, unsent: unsent, wait: resetLookFirst, until: l.Now().Add(resetPatience)}
	g.op.Owner = g
	g.op.Handle = h
	l.lingerers.Add(g, &g.at)
	g.timer = l.NewTimer(g.look)
	g.timer.Set(g.wait)
	g.next() // the peer may not read before its own bytes have been taken
}

// look resets the connection if the peer has everything.
func (g *lingerer) look() {
	n, err := g.loop.be.GetOption(g.op.Handle, backend.UnsentBytes)
	now := g.loop.Now()
	switch {
	case err != nil || n == 0 || n >= g.unsent && now.After(g.until):
		g.end()
		return
	case n < g.unsent:
		g.until = now.Add(resetPatience)
	}
	g.unsent = n
	g.wait = min(2*g.wait, resetLookMost)
	g.timer.Set(g.wait)
}

func (g *lingerer) next() {
	g.op.Kind, g.op.Flags = backend.Read, backend.Multi
	if c, ok := g.loop.submit(&g.op); ok {
		g.OpDone(&c)
	}
}

func (g *lingerer) OpDone(c *backend.Completion) {
	switch {
	case g.ending || c.Err != nil && c.Err != backend.ErrAgain:
		g.end()
		return
	case c.Err == nil && c.N == 0:
		if g.eof = true; !g.resets {
			g.end()
			return
		}
	case c.Err == nil:
		left := g.until.Sub(g.loop.Now())
		if g.read += c.N; left <= 0 || g.read > lingerBytes {
			g.end()
			return
		}
		if !g.resets {
			g.timer.Set(min(left, lingerIdle))
		}
	}
	if !g.op.Armed() && !g.eof {
		g.next()
	}
}

func (g *lingerer) end() {
	g.ending = true
	g.timer.Stop()
	if g.op.Armed() && !g.loop.be.Cancel(&g.op) {
		return // its last result comes here again
	}
	if g.loop.lingerers.Remove(&g.at) {
		how := backend.CloseFlat
		if g.resets {
			how = backend.CloseReset
		}
		g.loop.shutHandle(g.op.Handle, how)
	}
}
