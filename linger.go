package weir

import (
	"syscall"
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
	of     membership
}

var _ backend.Owner = (*lingerer)(nil)

// linger takes over h, whose write buffer is empty and from which nothing reads; t is
// its tenant, or nil.
func linger(l *Loop, t *Tenant, h backend.Handle, ended bool) {
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
	g.of.join(t, g)
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
func lingerReset(l *Loop, t *Tenant, h backend.Handle, unsent int) {
	g := &lingerer{loop: l, resets: true, unsent: unsent, wait: resetLookFirst, until: l.Now().Add(resetPatience)}
	g.op.Owner = g
	g.op.Handle = h
	l.lingerers.Add(g, &g.at)
	g.of.join(t, g)
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
		g.of.leave()
		how := backend.CloseFlat
		if g.resets {
			how = backend.CloseReset
		}
		g.loop.shutHandle(g.op.Handle, how)
	}
}

// unacked finds peers that have vanished while bytes are on their way to them. TCP's
// keep-alive probes idle connections only; if something waits for an acknowledgment,
// the system keeps trying for a quarter of an hour. The system's own bound
// (WithUserTimeout) also gives up on a peer whose window is shut, even though that peer
// answers every probe. So, from time to time, the loop checks the connections that have
// written something since:
//
//	a write ──▶ in list ──every unackedEvery──▶ all acknowledged: out of the list
//	                 ▲                     ├──▶ probed without an answer for as long
//	                 │                     │    as keep-alive would take: lost, ETIMEDOUT
//	                 └─────────────────────┘
//
// An idle connection costs nothing, a busy one a system call each time.
type unacked struct {
	list  []unackedStream
	gone  int // how many in list have been lost meanwhile
	timer *Timer
	off   bool // the backend cannot tell
}

type unackedStream struct {
	k     *socket
	since time.Duration // when the silence began, at the earliest
}

const unackedEvery = 5 * time.Second

// wrote records that bytes of k have been handed to the system.
func (k *socket) wrote() {
	if k.watched || k.net != netTCP || k.loop.unacked.off {
		return
	}
	u := &k.loop.unacked
	k.watched = true
	u.list = append(u.list, unackedStream{k, k.loop.now})
	if u.timer == nil {
		u.timer = k.loop.NewTimer(k.loop.sweepUnacked)
	}
	if !u.timer.Running() {
		u.timer.Set(unackedEvery)
	}
}

// unwatched records that a stream in the list is lost. The lost ones are taken out once
// there are many.
func (u *unacked) unwatched() {
	if u.gone++; u.gone > goneMost && u.gone > len(u.list)/2 {
		u.keep(func(e *unackedStream) bool { return e.k.phase < phaseLost })
	}
}

func (u *unacked) keep(f func(*unackedStream) bool) {
	kept := u.list[:0]
	for i := range u.list {
		e := &u.list[i]
		if f(e) {
			kept = append(kept, *e)
		} else {
			e.k.watched = false
		}
	}
	clear(u.list[len(kept):])
	if u.list, u.gone = kept, 0; len(kept) == 0 {
		u.list = nil
	}
}

func (l *Loop) sweepUnacked() {
	u := &l.unacked
	var lost []*socket
	u.keep(func(e *unackedStream) bool {
		if e.k.phase >= phaseLost {
			return false
		}
		stays, gone := l.lookUnacked(e)
		if gone {
			lost = append(lost, e.k)
		}
		return stays
	})
	if len(u.list) > 0 {
		u.timer.Set(unackedEvery)
	}
	for _, k := range lost {
		k.lose(k.opError("write", syscall.ETIMEDOUT))
	}
}

// lookUnacked reports whether e stays in the list and, if not, whether its peer is
// considered gone.
func (l *Loop) lookUnacked(e *unackedStream) (stays, gone bool) {
	h := e.k.wh
	if h == backend.None {
		return false, false
	}
	if n, err := l.be.GetOption(h, backend.UnsentBytes); err != nil || n == 0 {
		return false, false
	}
	ms, err := l.be.GetOption(h, backend.Unanswered)
	if err != nil {
		l.unacked.off = l.unacked.off || err == backend.ErrUnsupported
		return false, false
	}
	silent := time.Duration(ms) * time.Millisecond
	if silent == 0 {
		e.since = l.now
		return true, false
	}
	e.since = max(e.since, l.now-silent)
	if l.now-e.since < unackedEvery {
		return true, false
	}
	s, err := l.be.GetOption(h, backend.Patience)
	if err != nil || s == 0 {
		return err == nil, false
	}
	return l.now-e.since < time.Duration(s)*time.Second, l.now-e.since >= time.Duration(s)*time.Second
}

// young asks for the keep-alive probes of connections that Connect has made. To ask takes
// three system calls on Linux, the first probe comes after seconds of silence, and most
// connections of a busy relay have ended by then. So the loop asks for all of them at one
// time, within youngTime, with one timer:
//
//	a connect ──▶ in list ──youngTime──▶ asked, as is every other in the list
//	                 └──────────────────▶ closed, given away, or told by SetKeepAlive: never
//
// The kernel counts the silence from the last packet and not from the time it was asked, so
// the probes come when they would have come. Connections that are accepted are asked by way of
// their listener.
type young struct {
	list  []youngStream
	gone  int // how many in list need not be asked any more
	timer *Timer
}

type youngStream struct {
	k       *socket
	seconds int // as backend.KeepAlive has it
}

const (
	youngTime  = time.Second
	youngLeast = 2 * youngTime // of an idle time that leaves room for youngTime
	youngBatch = 256           // how many are asked in one turn
	goneMost   = 64            // how many of a list may be gone, if that is not most of them
)

// waitsForProbes reports whether keep-alive is asked for later: see young.
func (c *connConfig) waitsForProbes(n network) bool {
	return n == netTCP && c.keepAlive >= youngLeast
}

// probeLater has k asked for its keep-alive probes before youngTime is over.
func (k *socket) probeLater(idle time.Duration) {
	y := &k.loop.young
	k.flags |= fYoung
	y.list = append(y.list, youngStream{k, roundUp(idle, time.Second)})
	if y.timer == nil {
		y.timer = k.loop.NewTimer(k.loop.askYoung)
	}
	if !y.timer.Running() {
		y.timer.Set(youngTime)
	}
}

// probeNow asks for the probes that probeLater put off.
func (k *socket) probeNow() {
	y := &k.loop.young
	for i := len(y.list) - 1; i >= 0 && k.flags&fYoung != 0; i-- {
		if e := y.list[i]; e.k == k {
			k.grown()
			_ = k.loop.be.SetOption(k.rh, backend.KeepAlive, e.seconds) // as in askYoung
		}
	}
}

// grown records that k need not be asked any more. Those are taken out of the list once there
// are many of them.
func (k *socket) grown() {
	if k.flags&fYoung == 0 {
		return
	}
	k.flags &^= fYoung
	y := &k.loop.young
	if y.gone++; y.gone <= goneMost || y.gone <= len(y.list)/2 {
		return
	}
	kept := y.list[:0]
	for _, e := range y.list {
		if e.k.flags&fYoung != 0 {
			kept = append(kept, e)
		}
	}
	clear(y.list[len(kept):])
	y.list, y.gone = kept, 0
}

// askYoung asks for the probes of the connections in the list, youngBatch of them in a turn.
func (l *Loop) askYoung() {
	y := &l.young
	left := max(len(y.list)-youngBatch, 0)
	for i := left; i < len(y.list); i++ {
		k := y.list[i].k
		if k.flags&fYoung == 0 {
			y.gone--
			continue
		}
		k.flags &^= fYoung
		// It fails if the connection has ended, which its next read reports.
		_ = l.be.SetOption(k.rh, backend.KeepAlive, y.list[i].seconds)
	}
	clear(y.list[left:])
	if y.list = y.list[:left]; left > 0 {
		y.timer.Set(0)
		return
	}
	y.list, y.gone = nil, 0
}
