package layer

import (
	"time"

	"github.com/weir-io/weir"
)

// gate bounds the handshakes of one loop: how many are in progress, and how many
// take a step in one turn. A step may cost a fifth of a millisecond, in which
// nobody else is served; a turn in between costs a hundredth of that.
type gate struct {
	shared *tlsShared
	loop   *weir.Loop
	users  int // handshakes that know it

	workers int // of WithHandshakeWorkers; 0: the loop waits

	first, last *tlsConn // those with a place, the one that moved last at the end
	places      int
	wanting     []*tlsConn // those that wait for a place
	filling     bool       // refill is to be called
	timer       *weir.Timer

	steps int        // taken in this turn
	busy  int        // workers that have a step, or will have
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
		g = &gate{shared: s, loop: l, workers: s.workers}
		if l.Backend().Name == "sim" {
			g.workers = 0 // a world waits for nobody that is not in it
		}
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
	if g.workers > 0 {
		if g.busy < g.workers {
			g.busy++
			return true
		}
		g.line(c)
		return false
	}
	if len(p) > 0 && !c.record.completes(p) {
		return true // nothing to compute yet
	}
	if g.steps < stepsPerTurn {
		g.count()
		return true
	}
	g.line(c)
	return false
}

// line puts c into the queue for a turn.
func (g *gate) line(c *tlsConn) {
	c.hs.queued = true
	g.ready = append(g.ready, c)
	c.hold(holdTurn)
}

// workerFree gives a worker to the next that waits for one.
func (g *gate) workerFree() {
	g.busy--
	for g.busy < g.workers && len(g.ready) > 0 {
		c := shift(&g.ready)
		if c.hs != nil {
			g.busy++
			g.let(c)
		}
	}
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
		c := shift(&g.ready)
		if c.hs == nil {
			continue
		}
		g.count()
		g.let(c)
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
		c := shift(&g.wanting)
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
		shift(&g.wanting)
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
	c.release(holdTurn)
	if h.mayStep && g.workers > 0 {
		h.mayStep = false
		g.workerFree()
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

// shift takes the first out of a queue, and keeps nothing of it.
func shift(q *[]*tlsConn) *tlsConn {
	c := (*q)[0]
	(*q)[0] = nil
	if *q = (*q)[1:]; len(*q) == 0 {
		*q = nil
	}
	return c
}
