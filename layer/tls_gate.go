package layer

import (
	"time"

	"github.com/weir-io/weir"
)

// gate bounds the handshakes of one loop: how many are in progress, and how
// many take a step in one turn. A step may take a fifth of a millisecond,
// during which no one else is served; a turn in between costs a hundredth of
// that.
//
// Both bounds are fair to the peers' addresses. Handshakes that wait for a turn
// or a place are served address by address, with a place going to the address
// that has the fewest. When all places are taken, an address that has fewer of
// them takes one from the address that has the most. So a peer that opens
// thousands of connections waits only for its own.
type gate struct {
	shared *tlsShared
	loop   *weir.Loop
	users  int // handshakes that refer to it

	workers int // of WithHandshakeWorkers; 0: the loop waits

	holders holders
	placed  hsList // those with a place, the one that moved last is at the end
	wanting turns  // those that wait for a place
	filling bool   // refill is due to be called
	timer   *weir.Timer

	steps  int   // taken in this turn
	lights int   // taken in this turn by the loop, although there are workers
	busy   int   // workers that have a step or are about to get one
	ready  turns // those that wait for a turn
	soon   *weir.Call
}

// stepsPerTurn is how many steps of handshakes one turn of the loop makes.
const stepsPerTurn = 1

// lightsPerTurn is how many of the steps that take little time (see tlsConn.isLight) the loop
// takes by itself in one turn although there are workers: to hand one over takes as long. The
// others go to workers.
const lightsPerTurn = 8

// stallTime is how long a handshake keeps its place without moving, if others
// want the place. A handshake moves when its peer has sent a whole record.
const stallTime = time.Second

// gate finds the gate of a loop.
func (s *tlsShared) gate(l *weir.Loop) *gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gates[l]
	if g == nil {
		g = &gate{shared: s, loop: l, workers: s.workers, placed: hsList{by: byGate}}
		if l.Backend().Name == "sim" {
			g.workers = 0 // a simulated world waits for nothing outside it
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
	h.whole = len(p) == 0 || c.record.completes(p)
	if !c.shared.client && h.holder == nil && !g.place(c) {
		return false
	}
	if h.mayStep {
		h.mayStep = false
		return true
	}
	if h.here = g.workers > 0 && h.light && g.lights < lightsPerTurn; h.here {
		g.lights++
		g.later()
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
	if len(p) > 0 && !h.whole {
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
	g.ready.push(c.hs)
	c.hold(holdTurn)
}

// workerFree gives the free worker to the next handshake that waits for one.
func (g *gate) workerFree() {
	g.busy--
	for g.busy < g.workers && g.ready.n > 0 {
		g.busy++
		g.let(g.ready.pop().conn)
	}
}

// count counts a step of this turn.
func (g *gate) count() {
	g.steps++
	g.later()
}

// later has nextTurn called.
func (g *gate) later() {
	if g.soon == nil {
		g.soon = g.loop.Soon(g.nextTurn)
	}
}

// nextTurn lets waiting handshakes take a step.
func (g *gate) nextTurn() {
	g.soon = nil
	g.steps, g.lights = 0, 0
	if g.workers > 0 {
		return // workerFree lets them
	}
	for g.steps < stepsPerTurn && g.ready.n > 0 {
		g.count()
		g.let(g.ready.pop().conn)
	}
}

// let allows c to take a step: it takes it at once if nothing needs to arrive
// first.
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
	if g.holders.n >= g.shared.cap && g.mayTake(c) {
		// Its place is given to c at once, before any waiting handshake learns
		// of it.
		g.holders.most().own.first.conn.handshakeFailed(ErrCrowded)
	}
	if g.holders.n < g.shared.cap {
		g.give(c)
		return true
	}
	g.wait(c)
	return false
}

// mayTake reports whether some address has more places than c's address would
// have with one more.
func (g *gate) mayTake(c *tlsConn) bool {
	return g.holders.most().places > g.holders.of(c.hs.peer)+1
}

// arrive handles a new connection. If all places are taken, and it may not take
// another's, nothing is read from it, so that what its peer sends costs no
// memory.
func (g *gate) arrive(c *tlsConn) {
	if g.holders.n >= g.shared.cap && !g.mayTake(c) {
		g.wait(c)
	}
}

// wait puts c into the queue for a place.
func (g *gate) wait(c *tlsConn) {
	c.hs.queued = true
	c.hold(holdTurn)
	g.wanting.push(c.hs)
	g.watch()
}

// refill lets as many waiting connections read as there are free places. Those
// on which nothing arrives take no place.
func (g *gate) refill() {
	g.filling = false
	for n := g.shared.cap - g.holders.n; n > 0 && g.wanting.n > 0; n-- {
		c := g.wanting.popLeast(&g.holders).conn
		c.hs.queued = false
		c.release(holdTurn)
	}
	if g.wanting.n > 0 && g.holders.n < g.shared.cap {
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
	c.hs.moved = g.loop.Now()
	g.holders.give(c.hs)
	g.placed.push(c.hs)
}

// evict checks whether the handshake that has not moved for longest has stood
// still for too long, and reports whether it has. If so it ends the handshake,
// unless that waits for us: the peer is not to blame for the time until its
// turn, or until a worker is done with it.
func (g *gate) evict() bool {
	h := g.placed.first
	now := g.loop.Now()
	if h == nil || now.Sub(h.moved) < stallTime {
		return false
	}
	if h.queued || h.mayStep || h.running {
		h.moved = now
		g.placed.remove(h)
		g.placed.push(h)
		return true
	}
	h.conn.handshakeFailed(ErrStalled)
	return true
}

// watch sets the timer for when the first of those with a place is due for
// eviction.
func (g *gate) watch() {
	if g.placed.first == nil || g.timer != nil && g.timer.Running() {
		return
	}
	if g.timer == nil {
		g.timer = g.loop.NewTimer(g.stalled)
	}
	g.timer.SetAt(g.placed.first.moved.Add(stallTime))
}

// evictionsPerTurn bounds how many stalled handshakes are unwound at once.
const evictionsPerTurn = 16

func (g *gate) stalled() {
	for range evictionsPerTurn {
		if g.wanting.n == 0 || !g.evict() {
			break
		}
	}
	if g.wanting.n > 0 {
		g.watch()
	}
}

// moved records that c's peer has sent a whole record.
func (g *gate) moved(c *tlsConn) {
	h := c.hs
	if h.holder == nil || !h.whole {
		return
	}
	h.moved = g.loop.Now()
	for _, l := range [...]*hsList{&g.placed, &h.holder.own} {
		l.remove(h)
		l.push(h)
	}
}

// leave removes a handshake from the gate.
func (g *gate) leave(c *tlsConn, h *handshake) {
	c.release(holdTurn)
	if h.mayStep && g.workers > 0 {
		h.mayStep = false
		g.workerFree()
	}
	if h.line != nil {
		h.line.turns.remove(h)
	}
	if h.holder != nil {
		g.placed.remove(h)
		g.holders.take(h)
		if g.wanting.n > 0 {
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
