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

// lingerer keeps a socket open after the transport above it has closed. A
// socket that is closed with bytes unread, or that gets bytes after it was
// closed, answers with a reset, and a reset makes the peer lose what it has not
// yet read. So the end of writing is sent, and what the peer still says is read
// and dropped until its own end or until the time is up.
type lingerer struct {
	loop   *Loop
	op     backend.Op
	timer  *Timer
	until  time.Time
	ending bool
	at     int // in the loop's bag
}

func (g *lingerer) place() *int { return &g.at }

// mustLinger reports whether closing now could cost the peer bytes. It is so
// while the peer has not ended and either has sent what we did not read or has
// not acknowledged everything.
func (s *stream) mustLinger() bool {
	if s.rh != s.wh || s.rh == backend.None || !s.net.socket() || s.flags&fEOF != 0 {
		return false
	}
	for _, o := range [...]backend.Option{backend.UnreadBytes, backend.UnsentBytes} {
		if n, err := s.loop.be.GetOption(s.rh, o); n > 0 || err == backend.ErrUnsupported {
			return true
		}
	}
	return false
}

// linger takes over h, whose write buffer is empty and which nobody reads.
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
	l.lingerers.add(g)
	g.timer = l.NewTimer(g.end)
	g.timer.Set(lingerIdle)
	g.read()
}

func (g *lingerer) read() {
	g.op.Kind, g.op.Flags = backend.Read, backend.Multi
	if c, ok := g.loop.submit(&g.op); ok {
		g.OpDone(&c)
	}
}

// OpDone implements backend.Owner.
func (g *lingerer) OpDone(c *backend.Completion) {
	switch {
	case g.ending || c.Err != nil && c.Err != backend.ErrAgain || c.Err == nil && c.N == 0:
		g.end()
		return
	case c.Err == nil:
		left := g.until.Sub(g.loop.Now())
		if left <= 0 {
			g.end()
			return
		}
		g.timer.Set(min(left, lingerIdle))
	}
	if !g.op.Armed() {
		g.read()
	}
}

func (g *lingerer) end() {
	g.ending = true
	g.timer.Stop()
	if g.op.Armed() && !g.loop.be.Cancel(&g.op) {
		return // its last result comes here again
	}
	if g.loop.lingerers.remove(g) {
		g.loop.shutHandle(g.op.Handle, backend.CloseFlat)
	}
}
