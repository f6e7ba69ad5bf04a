package layer

import (
	"context"
	"crypto/tls"
	"errors"
	"iter"
	"runtime"
	"strings"
	"time"

	"github.com/weir-io/weir"
)

// ErrStalled is the cause of a handshake that was ended for others that waited:
// see WithHandshakeCap.
var ErrStalled = errors.New("the peer is silent in its handshake, and others wait")

// handshake is what a connection has only until it is open.
type handshake struct {
	gate       *gate
	next       func() (struct{}, bool) // nil before it begins
	stop       func()
	yield      func(struct{}) bool
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
	if h.next == nil {
		c.start()
	}
	unlocked(func() { h.next() })
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

// start makes the coroutine.
func (c *tlsConn) start() {
	h := c.hs
	if c.shared.client {
		c.conn = tls.Client((*tlsWire)(c), c.shared.cfg)
	} else {
		c.conn = tls.Server((*tlsWire)(c), c.shared.cfg)
	}
	unlocked(func() {
		h.next, h.stop = iter.Pull(func(yield func(struct{}) bool) {
			h.yield = yield
			h.err = c.conn.HandshakeContext(context.Background())
			h.done = true
		})
	})
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
	if h.stop != nil && !h.done {
		c.over = true // what it writes now reaches nobody
		c.in = nil
		unlocked(h.stop)
	}
}

// unlocked calls f on a goroutine that is not locked to a thread, and waits for
// it. A coroutine must be resumed, and stopped, in the state of locking in which
// it was made, or the runtime ends the program. A loop's goroutine may be
// locked, may change, and may not be the one that closes the loop; unlocked, none
// of this matters.
func unlocked(f func()) {
	if !lockedToThread() {
		f()
		return
	}
	var panicked any
	done := make(chan struct{})
	// not simulated: it is as if it were called, and only on a locked thread.
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		f()
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
}

// lockedToThread reports whether the calling goroutine is: only the head of its
// stack trace tells.
func lockedToThread() bool {
	var head [64]byte
	n := runtime.Stack(head[:], false)
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	return strings.Contains(line, "locked to thread")
}

// gate bounds the handshakes of one loop: how many are in progress, and how many
// take a step in one turn. A step may cost a fifth of a millisecond, in which
// nobody else is served.
type gate struct {
	shared *tlsShared
	loop   *weir.Loop
	users  int // handshakes that know it

	first, last *tlsConn // those with a place, the one that moved last at the end
	places      int
	wanting     []*tlsConn // those that wait for a place
	timer       *weir.Timer

	steps int        // taken in this turn
	ready []*tlsConn // those that wait for a turn
	soon  *weir.Call
}

// stepsPerTurn is how many steps of handshakes one turn of the loop makes.
const stepsPerTurn = 4

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
	if c.shared.client && c.hs.next == nil {
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
	c.hs.queued = true
	c.hold(holdTurn)
	g.wanting = append(g.wanting, c)
	g.watch()
	return false
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
		if !g.waiting() || !g.evict() { // one that is evicted gives its place on
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
			next := g.wanting[0]
			g.wanting = g.wanting[1:]
			g.give(next)
			next.hs.queued = false
			next.release(holdTurn)
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
