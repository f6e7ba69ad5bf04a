package weir

import (
	"strings"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// flushTime is how long Close goes on sending what was written before it; see
// WithFlushTime.
const flushTime = 5 * time.Second

// CutError says what a graceful shutdown, or Close, did not wait for. It is also
// ErrLoopClosed if the end of a loop cut it.
type CutError struct {
	Connections int // cut connections: at a deadline all that were open, otherwise those that had bytes to send
	Bytes       int // written and not yet handed to the system or, if the connection is closed already, not yet acknowledged; includes bytes of layers
	Datagrams   int // the same for datagram endpoints
	Connects    int // connects under way at a deadline
	err         error
}

func (e *CutError) Error() string {
	var parts []string
	for _, p := range [...]struct {
		n         int
		one, many string
	}{
		{e.Connections, "connection", "connections"},
		{e.Bytes, "byte unsent", "bytes unsent"},
		{e.Datagrams, "datagram unsent", "datagrams unsent"},
		{e.Connects, "connect under way", "connects under way"},
	} {
		switch {
		case p.n == 1:
			parts = append(parts, "1 "+p.one)
		case p.n > 1:
			parts = append(parts, itoa(p.n)+" "+p.many)
		}
	}
	return "weir: cut at the end: " + strings.Join(parts, ", ")
}

// Unwrap returns ErrLoopClosed, or ErrAborted if the end of a listener cut it.
func (e *CutError) Unwrap() error { return e.err }

func (e *CutError) empty() bool {
	return e.Connections == 0 && e.Bytes == 0 && e.Datagrams == 0 && e.Connects == 0
}

func (e *CutError) add(o *CutError) {
	e.Connections += o.Connections
	e.Bytes += o.Bytes
	e.Datagrams += o.Datagrams
	e.Connects += o.Connects
}

// ending is the state of a loop that Shutdown ends.
type ending struct {
	deadline *Timer
	until    time.Time
	over     bool // nothing is left, or the time is up

	listeners int      // listeners not closed yet
	closed    []func() // called once they are
}

// Shutdown ends the loop gracefully: it is a Stop that first lets accepted work finish.
// Listeners take the connections that wait in the system's queue and then close;
// connections, with their handshakes and their layers, and connects under way go on as
// before until they end by themselves. Run returns nil when none is left, or after d;
// below 0 counts as 0. Then call Close, which ends what is left at once and returns a
// *CutError that counts it. Timers, posts, watched descriptors and datagram endpoints
// keep working until then and do not hold up the end, except for queued datagrams,
// posts, and the connections and connects of a LoopEnder.
//
// Any goroutine may call it; it does not wait. The channel is closed when the end has
// come, before Run returns: a host that calls Turn checks it, and a goroutine other
// than the loop's may wait for it. A later call can bring the deadline forward but not
// put it off. A loop that is not running shuts down once Run is called. Listen fails
// with ErrLoopClosed meanwhile.
func (l *Loop) Shutdown(d time.Duration) <-chan struct{} {
	// A closed loop has closed the channel.
	_ = l.postInternal(func() { l.end(d, func() {}) })
	return l.ended
}

// end begins what Shutdown asks for. Once no listener is open and every connection that
// they accepted is on its loop, or the time is up, it calls closed.
func (l *Loop) end(d time.Duration, closed func()) {
	if l.state.Load() >= loopClosing {
		return
	}
	d = max(d, 0)
	until := l.Now().Add(d)
	e := l.ending
	begins := e == nil
	switch {
	case begins:
		e = &ending{listeners: l.listeners.Len()}
		e.deadline = l.NewTimer(func() {
			e.over = true
			e.tellClosed()
		})
		l.ending = e
	case !until.Before(e.until):
		return
	}
	e.closed = append(e.closed, closed)
	e.until = until
	e.deadline.Set(d)
	if e.listeners == 0 {
		e.tellClosed()
	}
	if begins {
		l.listeners.Each(func(ln *Listener) {
			ln.drain(func() {
				if e.listeners--; e.listeners == 0 {
					e.tellClosed()
				}
			})
		})
		l.endpoints.Each(func(e *PacketEndpoint) { e.loopEnds(false) })
	}
}

func (e *ending) tellClosed() {
	for _, f := range e.closed {
		f()
	}
	e.closed = nil
}

// endOver ends what Shutdown began when nothing is left to wait for.
func (l *Loop) endOver() bool {
	if !l.ending.over && l.atRest() {
		l.ending.over = true
	}
	if l.ending.over {
		l.ending.deadline.Stop()
		l.tellEnded()
	}
	return l.ending.over
}

func (l *Loop) tellEnded() {
	if !l.told {
		l.told = true
		close(l.ended)
	}
}

// atRest reports whether nothing is open that Shutdown waits for, and nothing is
// queued.
func (l *Loop) atRest() bool {
	if l.conns.first != nil || l.listeners.Len()+l.lingerers.Len()+l.attempts.Len() > 0 || l.away.Load() > 0 ||
		len(l.ready)+len(l.dirty)+len(l.early) > 0 || l.posts.Load() != nil || l.tenantsBusy() {
		return false
	}
	for e := range l.endpoints.All() {
		if !e.wr.idle() || e.feed != nil && e.feed.buffered() > 0 || e.connecting() > 0 {
			return false
		}
	}
	return true
}

// flushOut is the first part of Close: it sends what was written before, through every
// layer, for at most patience. Idle connections end at once.
func (l *Loop) flushOut(patience time.Duration) {
	if l.ending != nil {
		return // there was time enough
	}
	until := l.be.Now() + patience
	reads := map[*PacketEndpoint]bool{} // what comes acknowledges what connections have sent
	for e := range l.endpoints.All() {
		for u := e; e.ender != nil && u != nil; {
			reads[u] = true
			if u.feed == nil {
				break
			}
			u = u.feed.below
		}
	}
	l.endpoints.Each(func(e *PacketEndpoint) {
		if !reads[e] {
			e.rd.stop()
		}
	})
	for first := true; ; first = false {
		l.now = l.be.Now()
		l.runOwn()
		if first {
			l.closeTops()
			l.settle()
		}
		if l.now >= until || !l.unsent() {
			return
		}
		l.endpoints.Each((*PacketEndpoint).loopCloses)
		l.settle()
		wait := min(10*time.Millisecond, until-l.now)
		if l.ownQueued() {
			wait = 0
		}
		n, err := l.be.Wait(wait, l.done)
		if err != nil {
			return // Close finds the same, and says so
		}
		l.deliver(l.done[:n])
	}
}

// closeTops closes every connection from its top, each once: the layer closes what is
// below it.
func (l *Loop) closeTops() {
	var below map[*stream]bool
	for s := l.conns.first; s != nil; s = s.next {
		if u := s.below(); u != nil {
			if below == nil {
				below = map[*stream]bool{}
			}
			below[u] = true
		}
	}
	for s, next := l.conns.first, (*stream)(nil); s != nil; s = next {
		next = s.next
		switch {
		case s.phase >= phaseClosing || below[s]:
		case s.flags&fMade == 0 || !s.agreed():
			s.lose(ErrLoopClosed)
		default:
			s.stopProducer()
			s.closeWith(ErrLoopClosed)
		}
	}
}

// agreed reports whether the protocol is not a layer that still has nothing
// above it.
func (s *stream) agreed() bool {
	_, layer := s.proto.(Carrier)
	return !layer
}

// unsent reports whether anything that was written is still here and may leave.
func (l *Loop) unsent() bool {
	for s := l.conns.first; s != nil; s = s.next {
		switch {
		case s.phase >= phaseLost:
		case s.writing() || s.foreignBusy() || s.phase == phaseClosing && !s.carries():
			return true
		}
	}
	for e := range l.endpoints.All() {
		if !e.lost && (!e.wr.idle() || e.feed != nil && e.feed.buffered() > 0) {
			return true
		}
	}
	for g := range l.lingerers.All() {
		if n, err := l.be.GetOption(g.op.Handle, backend.UnsentBytes); err == nil && n > 0 {
			return true
		}
	}
	return false
}

// foreignBusy reports whether a connection that is not the loop's may still have
// bytes to write.
func (s *stream) foreignBusy() bool {
	k, ok := s.lower.(*carried)
	return ok && k.phase == phaseClosing && !k.isGone && s.Unwrap() == nil
}

// ownQueued reports whether something that runOwn runs is queued.
func (l *Loop) ownQueued() bool {
	if l.posts.Load() != nil || len(l.early) > 0 {
		return true
	}
	for _, r := range l.ready {
		if _, ok := own(r); ok {
			return true
		}
	}
	return false
}

// own reports whether Close runs r: it runs the streams' work, what waited for a tenant's
// turn to read again, the loop's own calls and the calls of Notifiers.
func own(r runnable) (run func(), ok bool) {
	switch r := r.(type) {
	case *stream:
		return r.run, true
	case *parkedStream:
		return r.run, true
	case *parkedReader:
		return r.run, true
	case *Call:
		return r.run, r.internal || r.notice
	}
	return nil, false
}

// runOwn runs the loop's own queued calls. Other calls are dropped, and counted:
// otherwise a goroutine that posts without end would make them pile up.
func (l *Loop) runOwn() {
	l.takePosts()
	queued := l.ready
	l.ready = nil
	for _, r := range queued {
		if run, ok := own(r); ok {
			run()
			l.settle()
		} else if c, ok := r.(*Call); ok {
			if c.drop() {
				l.dropped++
			}
			l.settle() // PostOr's function may have written
		} else {
			l.ready = append(l.ready, r)
		}
	}
}

// toCut counts what Close now cuts; nil if that is nothing. After a Shutdown every open
// connection counts, and so do the connects that it ended; otherwise only connections
// that have bytes to send count.
func (l *Loop) toCut(connects int) *CutError {
	cut := &CutError{err: ErrLoopClosed}
	all := l.ending != nil
	dirty := map[*stream]bool{}
	for s := l.conns.first; s != nil; s = s.next {
		if s.phase >= phaseLost || s.flags&fMade == 0 && !all {
			continue
		}
		n := s.unsentBytes()
		cut.Bytes += n
		if n > 0 || all || s.foreignBusy() {
			dirty[s.bottom()] = true
		}
	}
	cut.Connections = len(dirty)
	for g := range l.lingerers.All() {
		// The bytes that the system still has are lost with the reset that answers bytes
		// from the peer.
		if n, err := l.be.GetOption(g.op.Handle, backend.UnsentBytes); err == nil && n > 0 {
			cut.Bytes += n
			cut.Connections++
		}
	}
	for e := range l.endpoints.All() {
		if !e.lost {
			cut.Datagrams += e.wr.waiting()
		}
	}
	if all {
		cut.Connects = connects
	}
	if cut.empty() {
		return nil
	}
	return cut
}

// unsentBytes is how many bytes the end of s itself would cut; bytes that wait below it
// count for the streams there.
func (s *stream) unsentBytes() int {
	n := s.waiting()
	if k, ok := s.lower.(*carried); ok {
		n += k.heldHere() + k.unsent()
	}
	if s.x.splice != nil {
		n += s.x.splice.held
	}
	return n
}

// stackBytes is unsentBytes of s and of what stands on it.
func (s *stream) stackBytes() int {
	n := 0
	for t := s.loop.conns.first; t != nil; t = t.next {
		if t.phase < phaseLost && t.bottom() == s {
			n += t.unsentBytes()
		}
	}
	return n
}

// bottom is the stream that stands on no other.
func (s *stream) bottom() *stream {
	for {
		u, ok := As[*stream](s.Unwrap())
		if !ok {
			return s
		}
		s = u
	}
}
