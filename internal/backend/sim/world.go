package sim

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"
)

// Stepper is what Step gives turns to: a loop on a backend of the world.
type Stepper interface {
	// Turn makes one turn, waiting for at most wait.
	Turn(wait time.Duration) error
	// Next says how long it may be left alone: 0 if it has something to do now,
	// false if it only waits for its backend.
	Next() (time.Duration, bool)
}

// World is a network of hosts with a clock. All of it belongs to one goroutine.
type World struct {
	cfg      Config
	seed     uint64
	faults   Faults
	healed   bool
	random   [purposes]random
	now      int64
	wall     time.Time
	stall    time.Duration
	queue    queue
	pool     pool
	packets  packets
	trace    trace
	hosts    []*Host
	backends []*Backend
	foreign  []*Foreign
	byAddr   map[netip.Addr]*Host

	latencies map[uint64]time.Duration
	cuts      map[uint64]bool
	crashing  []crash
	ending    []*Program
	started   uint64 // programs

	runnable   []*Backend
	steps      []*Foreign
	draining   bool
	sockets    uint32
	stats      Stats
	calls      [whats]int
	rules      []*rule
	holds      []*Hold
	pickLoop   func([]string) int
	pickResult func([]Event) int
	violations []string
	err        error
	still      int // turns since anything happened but turns
}

// Stats count what a world has done.
type Stats struct {
	Events  int // of the wire and of time
	Results int // handed out by backends
	Turns   int // given to loops by Step
	Bytes   int // taken from writers
	Joined  int // results that are several datagrams
}

// Total is what is called simulated events: everything that was executed in an
// order that the seed decided.
func (s Stats) Total() int { return s.Events + s.Results + s.Turns }

var (
	// ErrAtRest is returned where nothing can happen any more: by a Wait for
	// ever, and by Run.
	ErrAtRest = errors.New("sim: the world is at rest, nothing can happen any more")
	// ErrLimit is returned by Run when it has taken too many steps.
	ErrLimit = errors.New("sim: the run did not end within its steps")
	// ErrSpin is returned by Run when loops get turn after turn while neither
	// the clock moves nor anything happens on the wire: somebody is busy waiting
	// (G9).
	ErrSpin = errors.New("sim: loops spin while nothing happens")
)

// New makes a world. The same seed and Config, and the same calls, give the
// same run.
func New(seed uint64, cfg Config) *World {
	w := &World{
		cfg: cfg, seed: seed, wall: cfg.Wall,
		byAddr: map[netip.Addr]*Host{}, latencies: map[uint64]time.Duration{}, cuts: map[uint64]bool{},
	}
	if cfg.Swarm {
		w.cfg.Faults = Draw(seed)
	}
	w.faults = w.cfg.Faults.filled()
	if w.wall.IsZero() {
		w.wall = time.Date(2013, time.March, 1, 12, 0, 0, 0, time.UTC)
	}
	for p := range w.random {
		w.random[p] = newRandom(seed, purpose(p))
	}
	w.trace.hash = mix(0, seed)
	return w
}

// Seed is what the world was made with.
func (w *World) Seed() uint64 { return w.seed }

// Faults are those in force.
func (w *World) Faults() Faults { return w.faults }

// SetFaults puts others in force, for what happens from now on.
func (w *World) SetFaults(f Faults) {
	w.faults = f.filled()
	w.healed = false
}

// Now is the world's monotonic clock.
func (w *World) Now() time.Duration { return time.Duration(w.now) }

// WallNow is the wall clock.
func (w *World) WallNow() time.Time { return w.wall.Add(time.Duration(w.now)) }

// Stats returns the counts so far.
func (w *World) Stats() Stats { return w.stats }

// TraceHash is a hash of everything that has happened, in its order, with the
// bytes that were written.
func (w *World) TraceHash() uint64 { return w.trace.hash }

// Err is the first failure of a loop or of the trace's writer.
func (w *World) Err() error { return w.err }

// Violations are breaches of the backend's contract by its callers that were
// noticed.
func (w *World) Violations() []string { return w.violations }

func (w *World) violation(b *Backend, text string) {
	w.violations = append(w.violations, b.name()+": "+text)
}

// HealAll ends all faults: partitions, silence, shut windows, shortages,
// whatever was drawn. Crashed hosts stay down unless a restart is due. What was
// lost is sent again at once.
func (w *World) HealAll() {
	w.faults = w.faults.calmed().filled()
	w.healed = true
	w.stall = 0
	w.crashing = w.crashing[:0]
	clear(w.cuts)
	for _, b := range w.backends {
		b.stalled = 0
	}
	for _, h := range w.hosts {
		h.shortage = 0
		for s := h.first; s != nil; s = s.next {
			s.out.tries, s.out.shutUntil = 0, 0
			if s.state == open && s.peer != nil {
				if s.out.retrying {
					w.push(w.now, event{kind: evRetry, s: s, gen: s.gen})
				}
				w.openWindow(s)
			}
		}
	}
}

// Step does one thing: an event that is due, or else one turn of a loop that
// has something to do, or else moves the clock to the next moment at which there
// is something. It returns false when there is none, ever: the world is at rest.
func (w *World) Step() bool { return w.step(nil, math.MaxInt64) }

// step is Step without the backend that waits, up to the moment limit.
func (w *World) step(waiter *Backend, limit int64) bool {
	if len(w.crashing) > 0 && waiter == nil {
		w.crash()
	}
	if len(w.ending) > 0 && w.EndPrograms() {
		return true
	}
	if w.fireDue() {
		return true
	}
	b, f, next := w.choose(waiter)
	switch {
	case b != nil:
		w.turn(b)
		return true
	case f != nil:
		w.stepForeign(f)
		return true
	}
	if at, _, ok := w.peek(); ok {
		next = min(next, at)
	}
	if next > limit || next == math.MaxInt64 {
		return false
	}
	w.advance(next)
	return true
}

// peek returns the time of the next event that counts.
func (w *World) peek() (int64, *event, bool) {
	for {
		at, ev, ok := w.queue.top()
		if !ok || ev.current() {
			return at, ev, ok
		}
		w.discount(ev)
		w.queue.pop()
	}
}

func (w *World) discount(ev *event) {
	if ev.host != nil {
		ev.host.pending--
	}
}

// fireDue executes the next event if it is due.
func (w *World) fireDue() bool {
	at, _, ok := w.peek()
	if !ok || at > w.now {
		return false
	}
	ev := w.queue.pop()
	if len(w.holds) > 0 && w.holdEvent(&ev) {
		return true
	}
	w.discount(&ev)
	w.fire(&ev)
	return true
}

// drain executes what is due at this moment, so that a call sees it as done:
// within a host a connection costs no time.
func (w *World) drain() {
	if w.draining {
		return
	}
	w.draining = true
	for w.fireDue() {
	}
	w.draining = false
}

func (w *World) fire(ev *event) {
	w.stats.Events++
	w.still = 0
	if w.stats.Events%weatherEvery == 0 && !w.healed {
		w.weather()
	}
	if s := ev.s; s != nil {
		w.record(kindWhats[ev.kind], s.host, s.id, int64(ev.pos), int64(ev.gen))
	} else {
		w.record(kindWhats[ev.kind], nil, 0, int64(ev.pos), 0)
	}
	switch ev.kind {
	case evArrive:
		w.arrive(ev)
	case evAck:
		w.acked(ev)
	case evReset:
		w.reset(ev.s)
	case evGone:
		w.farewell(ev.s, ev.fin)
	case evSyn:
		w.syn(ev)
	case evSynRetry:
		w.synRetry(ev.s)
	case evSynAck:
		w.synAcked(ev.s)
	case evEstablish:
		w.established(ev.s)
	case evRefuse:
		if w.hostsCut(ev.s.host, w.dest(ev.s)) {
			w.synLater(ev.s)
		} else {
			// What was refused is not connected any more.
			w.failDial(ev.s, refused)
		}
	case evNoRoute:
		w.failDial(ev.s, noRoute)
	case evRetry:
		w.retry(ev.s)
	case evKeepAlive:
		w.probed(ev.s)
	case evLate:
		ev.s.cancelDue |= 1 << ev.place
		ev.s.kick()
	case evWindow:
		w.openWindow(ev.s)
	case evDatagram:
		w.datagram(ev)
	case evUnreachable:
		w.unreachable(ev)
	case evRoom:
		ev.s.kick()
	case evProgram:
		w.programEvent(ev)
	case evHeal:
		delete(w.cuts, ev.pos)
	case evRestart:
		h := w.hosts[ev.pos]
		h.down = false
		if h.OnCrash != nil {
			h.OnCrash(h)
		}
	}
}

// choose picks a loop that has something to do, foreign ones included; without one it
// returns when the first will have.
func (w *World) choose(waiter *Backend) (*Backend, *Foreign, int64) {
	next := int64(math.MaxInt64)
	w.runnable, w.steps = w.runnable[:0], w.steps[:0]
	for _, b := range w.backends {
		if b == waiter || b.busy || b.stopped || b.stepper == nil {
			continue
		}
		at := b.nextTurn()
		if b.stalled > w.now {
			at = max(at, b.stalled)
		}
		if at <= w.now {
			w.runnable = append(w.runnable, b)
		} else {
			next = min(next, at)
		}
	}
	for _, f := range w.foreign {
		switch {
		case f.busy || len(f.queue) == 0:
		case f.at <= w.now:
			w.steps = append(w.steps, f)
		default:
			next = min(next, f.at)
		}
	}
	i, n := 0, len(w.runnable)+len(w.steps)
	switch {
	case n == 0:
		return nil, nil, next
	case w.pickLoop != nil:
		names := make([]string, 0, n)
		for _, b := range w.runnable {
			names = append(names, b.name())
		}
		for _, f := range w.steps {
			names = append(names, f.name())
		}
		i = min(max(w.pickLoop(names), 0), n-1)
	case n > 1:
		i = w.random[forTurns].below(n)
	}
	if i < len(w.runnable) {
		return w.runnable[i], nil, 0
	}
	return nil, w.steps[i-len(w.runnable)], 0
}

// nextTurn is when b's loop wants a turn; the past for at once.
func (b *Backend) nextTurn() int64 {
	if b.due != nil && b.told {
		return math.MaxInt64 // its host knows
	}
	if b.ready.len() > 0 || len(b.failed) > 0 || b.woken.Load() {
		return 0
	}
	d, ok := b.stepper.Next()
	if !ok {
		return math.MaxInt64
	}
	return b.w.after(d)
}

func (w *World) turn(b *Backend) {
	w.stats.Turns++
	if w.still++; w.still > spinLimit && w.err == nil {
		w.err = fmt.Errorf("%w: %s, at %v", ErrSpin, b.name(), w.Now())
	}
	w.record(TurnOf, b.host, uint32(b.id), 0, 0)
	if b.due != nil {
		b.told = true
		b.due()
		return
	}
	b.busy = true
	err := b.stepper.Turn(0)
	b.busy = false
	if err != nil {
		b.stepper = nil
		if w.err == nil && !b.crashed {
			w.err = err
		}
	}
}

// advance moves the clock.
func (w *World) advance(to int64) {
	if w.stall > 0 {
		if d := int64(w.stall); to < math.MaxInt64-d {
			to += d
		}
		w.stall = 0
	}
	if to > w.now {
		w.now, w.still = to, 0
	}
}

const (
	runLimit  = 50_000_000 // steps of one Run
	spinLimit = 100_000    // turns with nothing happening
)

// Run steps until a condition holds, which is asked before each step; nil is
// never, so that the world comes to rest. It returns ErrAtRest if it cannot come
// to hold any more, ErrLimit after too many steps, and otherwise Err. After the
// first failure nothing runs any more.
func (w *World) Run(until func() bool) error {
	for range runLimit {
		if w.err != nil || until != nil && until() {
			return w.err
		}
		if !w.Step() {
			if until == nil {
				return w.err
			}
			return ErrAtRest
		}
	}
	return ErrLimit
}

// RunFor runs for d of the world's time, whether something happens or not.
func (w *World) RunFor(d time.Duration) error {
	limit := w.after(d)
	for range runLimit {
		if w.err != nil {
			return w.err
		}
		if !w.step(nil, limit) {
			w.advance(limit)
			return w.err
		}
		if w.now > limit {
			return w.err
		}
	}
	return ErrLimit
}

func (b *Backend) name() string { return b.host.name + "/" + strconv.Itoa(b.id) }
