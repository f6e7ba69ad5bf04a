package layer

import (
	"context"
	"crypto/tls"
	"errors"
	"runtime/debug"
	"time"

	"github.com/weir-io/weir"
)

// ErrStalled is the cause of a handshake that was ended for others that waited:
// see WithHandshakeCap.
var ErrStalled = errors.New("the peer is silent in its handshake, and others wait")

// handshake is what a connection has only until it is open. crypto/tls runs on a
// goroutine of its own then, but never at the same time as the loop's: one of
// the two waits for the other.
//
//	loop       ── resume true ──▶ crypto/tls computes, until it wants bytes or is done
//	           ◀──── yielded ────
//	the end    ── resume false ─▶ its Read fails, and it returns
//
// An iter.Pull would do the same, at less cost on a thread that is locked, but the
// runtime ends the program if one is resumed or stopped elsewhere than where it
// was made, and loops are closed by other goroutines than those that ran them.
type handshake struct {
	gate       *gate
	resume     chan bool     // nil before it begins
	yielded    chan struct{} // closed when crypto/tls has returned
	panicked   *weir.PanicError
	out        []byte // written by crypto/tls, to be sent when it has yielded
	err        error
	done       bool // crypto/tls returned
	counted    bool // it has one of the gate's places
	mayStep    bool // its turn has come
	queued     bool // it waits for its turn
	moved      time.Time
	prev, more *tlsConn // the gate's list of those with a place
}

// step goes on with the handshake, with what has arrived, and returns how much
// of it was used.
func (c *tlsConn) step(p []byte) int {
	h := c.hs
	c.in = p
	if h.resume == nil {
		c.start()
	}
	h.resume <- true
	<-h.yielded
	if h.panicked != nil {
		c.Fail(h.panicked)
		return len(p)
	}
	if len(h.out) > 0 && !c.over {
		_, _ = c.below.Write(h.out) // a loss is reported by ConnectionLost
		h.out = h.out[:0]
	}
	switch {
	case !h.done:
		h.gate.moved(c)
	case h.err != nil:
		c.handshakeFailed(reason(h.err, c.shared.cfg))
	default:
		h.end(c)
		if c.Ready() {
			c.pump()
		}
	}
	return c.taken(p)
}

// errGoexit is the cause where a function of the configuration ended its
// goroutine.
var errGoexit = errors.New("a function of the TLS configuration called runtime.Goexit")

// start makes the goroutine of the handshake.
func (c *tlsConn) start() {
	h := c.hs
	if c.shared.client {
		c.conn = tls.Client((*tlsWire)(c), c.shared.cfg)
	} else {
		c.conn = tls.Server((*tlsWire)(c), c.shared.cfg)
	}
	h.resume, h.yielded = make(chan bool), make(chan struct{})
	// not simulated: the loop waits for it whenever it runs.
	go func() {
		defer close(h.yielded)
		h.err = errGoexit
		defer func() {
			h.done = true
			if v := recover(); v != nil {
				h.panicked = &weir.PanicError{Where: "a function of the TLS configuration", Conn: c.below.RemoteAddr().String(), Value: v, Stack: debug.Stack()}
			}
		}()
		if <-h.resume {
			h.err = c.conn.HandshakeContext(context.Background())
		}
	}()
}

// wait hands over to the loop until there is more to read; it reports false if
// there never will be. crypto/tls calls it through the wire's Read.
func (h *handshake) wait() bool {
	h.yielded <- struct{}{}
	return <-h.resume
}

// handshakeFailed ends a connection that never was one. What crypto/tls wrote
// about it, an alert, still leaves.
func (c *tlsConn) handshakeFailed(err error) {
	c.hs.end(c)
	c.over = true
	c.FailGently(err)
}

// end gives the handshake's place to others, and unwinds what crypto/tls has in
// progress.
func (h *handshake) end(c *tlsConn) {
	c.hs = nil
	h.gate.leave(c, h)
	if h.resume != nil && !h.done {
		c.over = true // what it writes now reaches nobody
		c.in = nil
		h.resume <- false
		<-h.yielded
	}
}

// gate bounds the handshakes of one loop: how many are in progress, and how many
// take a step in one turn. A step may cost a fifth of a millisecond, in which
// nobody else is served; a turn in between costs a hundredth of that.
type gate struct {
	shared *tlsShared
	loop   *weir.Loop
	users  int // handshakes that know it

	first, last *tlsConn // those with a place, the one that moved last at the end
	places      int
	wanting     []*tlsConn // those that wait for a place
	filling     bool       // refill is to be called
	timer       *weir.Timer

	steps int        // taken in this turn
	ready []*tlsConn // those that wait for a turn
	soon  *weir.Call
}

// stepsPerTurn is how many steps of handshakes one turn of the loop makes.
const stepsPerTurn = 1

// stallTime is how long a handshake keeps its place without moving, if others
// want it.
const stallTime = time.Second

// gate finds the gate of a loop.
func (s *tlsShared) gate(l *weir.Loop) *gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gates[l]
	if g == nil {
		g = &gate{shared: s, loop: l}
		s.gates[l] = g
	}
	g.users++
	return g
}

// admit reports whether c may take a step now, with the bytes p. If not, it is
// called again with the same bytes when it may.
func (g *gate) admit(c *tlsConn, p []byte) bool {
	h := c.hs
	if h.queued {
		return false
	}
	if !c.shared.client && !h.counted && !g.place(c) {
		return false
	}
	if h.mayStep {
		h.mayStep = false
		return true
	}
	if len(p) > 0 && !c.record.completes(p) {
		return true // nothing to compute yet
	}
	if g.steps < stepsPerTurn {
		g.count()
		return true
	}
	h.queued = true
	g.ready = append(g.ready, c)
	c.hold(holdTurn)
	return false
}

// count notes a step of this turn.
func (g *gate) count() {
	g.steps++
	if g.soon == nil {
		g.soon = g.loop.Soon(g.nextTurn)
	}
}

// nextTurn lets those step that wait.
func (g *gate) nextTurn() {
	g.soon = nil
	g.steps = 0
	for g.steps < stepsPerTurn && len(g.ready) > 0 {
		c := g.ready[0]
		g.ready = g.ready[1:]
		if c.hs == nil {
			continue
		}
		g.count()
		g.let(c)
	}
	if len(g.ready) == 0 {
		g.ready = nil
	}
}

// let makes c step: at once where nothing need arrive for that.
func (g *gate) let(c *tlsConn) {
	c.hs.queued = false
	c.hs.mayStep = true
	c.release(holdTurn)
	if c.shared.client && c.hs.resume == nil {
		c.hs.mayStep = false
		c.step(nil)
	}
}

// place gives c one of the places, or makes it wait for one.
func (g *gate) place(c *tlsConn) bool {
	if g.places < g.shared.cap {
		g.give(c)
		return true
	}
	g.wait(c)
	return false
}

// arrive looks at a connection that is new. Where all places are taken nothing
// is read from it, so that it costs no memory for what its peer says.
func (g *gate) arrive(c *tlsConn) {
	if g.places >= g.shared.cap {
		g.wait(c)
	}
}

// wait puts c into the queue for a place.
func (g *gate) wait(c *tlsConn) {
	c.hs.queued = true
	c.hold(holdTurn)
	g.wanting = append(g.wanting, c)
	g.watch()
}

// refill lets as many read as there are places. Those of whom nothing arrives
// take none.
func (g *gate) refill() {
	g.filling = false
	for n := g.shared.cap - g.places; n > 0 && g.waiting(); n-- {
		c := g.wanting[0]
		g.wanting = g.wanting[1:]
		c.hs.queued = false
		c.release(holdTurn)
	}
	if g.waiting() && g.places < g.shared.cap {
		g.refillLater()
	}
}

func (g *gate) refillLater() {
	if !g.filling {
		g.filling = true
		g.loop.Soon(g.refill)
	}
}

func (g *gate) give(c *tlsConn) {
	c.hs.counted = true
	g.places++
	g.push(c)
}

// evict ends the handshake that has not moved for longest, if that is long
// enough.
func (g *gate) evict() bool {
	c := g.first
	if c == nil || g.loop.Now().Sub(c.hs.moved) < stallTime {
		return false
	}
	c.handshakeFailed(ErrStalled)
	return true
}

// watch wakes when the first of those with a place is due for eviction.
func (g *gate) watch() {
	if g.first == nil || g.timer != nil && g.timer.Running() {
		return
	}
	if g.timer == nil {
		g.timer = g.loop.NewTimer(g.stalled)
	}
	g.timer.SetAt(g.first.hs.moved.Add(stallTime))
}

// evictionsPerTurn bounds how many stalled handshakes are unwound at once.
const evictionsPerTurn = 16

func (g *gate) stalled() {
	for range evictionsPerTurn {
		if !g.waiting() || !g.evict() {
			break
		}
	}
	if g.waiting() {
		g.watch()
	}
}

// waiting reports whether somebody wants a place.
func (g *gate) waiting() bool {
	for len(g.wanting) > 0 && g.wanting[0].hs == nil {
		g.wanting = g.wanting[1:]
	}
	return len(g.wanting) > 0
}

func (g *gate) push(c *tlsConn) {
	h := c.hs
	h.moved = g.loop.Now()
	h.prev, h.more = g.last, nil
	if g.last != nil {
		g.last.hs.more = c
	} else {
		g.first = c
	}
	g.last = c
}

func (g *gate) remove(h *handshake) {
	if h.prev != nil {
		h.prev.hs.more = h.more
	} else {
		g.first = h.more
	}
	if h.more != nil {
		h.more.hs.prev = h.prev
	} else {
		g.last = h.prev
	}
	h.prev, h.more = nil, nil
}

// moved notes that c's peer has said something.
func (g *gate) moved(c *tlsConn) {
	if c.hs.counted {
		g.remove(c.hs)
		g.push(c)
	}
}

// leave takes a handshake out of the books.
func (g *gate) leave(c *tlsConn, h *handshake) {
	if c.held&holdTurn != 0 {
		c.release(holdTurn)
	}
	if h.counted {
		h.counted = false
		g.places--
		g.remove(h)
		if g.waiting() {
			g.refillLater()
		}
	}
	g.shared.mu.Lock()
	defer g.shared.mu.Unlock()
	if g.users--; g.users == 0 {
		if g.timer != nil {
			g.timer.Stop()
		}
		delete(g.shared.gates, g.loop)
	}
}
