package weir

import (
	"errors"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/choice"
	"github.com/weir-io/weir/internal/bag"
	"github.com/weir-io/weir/internal/timers"
)

// Loop runs callbacks, timers and connections on one goroutine.
//
// One turn:
//
//	┌─▶ take posts and due timers into the queue; I/O that may have been there
//	│   before a timer was due is taken first
//	│   run what was in the queue when the turn began, in order
//	│   wait for I/O: not at all if more is queued, else until the next timer
//	└── run the I/O callbacks, in the order the backend reports them
//
// What a callback writes is sent when the callback has returned, or before: see
// Transport.Write.
//
// Methods that are safe from any goroutine say so; all others belong to the goroutine
// that runs the loop, or to any goroutine while it does not run.
type Loop struct {
	be   backend.Backend
	caps backend.Caps
	base time.Time // the wall-clock time when be.Now was 0
	now  time.Duration
	seen time.Duration // everything ready by then has been delivered, perhaps more

	timers  timers.Heap
	ready   []runnable // what the next turn runs
	batch   []runnable // what this turn runs
	dirty   []*stream  // streams to look after when the callback returns
	done    []backend.Completion
	scratch backend.Completion // where Submit puts a result: on the stack it would escape
	gather  gather
	one     [1][]byte            // what a direct write sends
	rights  []byte               // memory for descriptors that come; nil until one may
	early   []backend.Completion // results that Submit returned at once; part of the next turn's I/O
	taken   []backend.Completion // the same while they are handed out
	given   []backend.Completion // what the last Wait reported, a part of done
	follows bool                 // another datagram comes right after the one being handed over
	bursts  []*packetWriter      // that wait for the last of them
	lent    []byte               // the datagram being handed over, where others of its message follow in its memory
	posts   atomic.Pointer[Call]
	stop    atomic.Bool
	state   atomic.Uint32

	noExtras  extras // shared by the streams that have none of their own; see stream.extra
	group     *Group // nil: it is in none
	bounds    bounds // of streams whose options set no others
	conns     streamList
	listeners bag.Bag[*Listener]
	endpoints bag.Bag[*PacketEndpoint]
	attempts  bag.Bag[*Connector]
	lingerers bag.Bag[*lingerer]
	watches   bag.Bag[*Watch]
	feeds     bag.Bag[*sourceFeed]
	signals   bag.Bag[*SignalHandler]
	watched   map[int]*Watch         // by descriptor
	sources   map[Source]*sourceFeed // by source

	pool      outPool
	pipes     []*kernelPipe // free ones, for splices
	unacked   unacked
	young     young
	short     shortage
	resolver  Resolver
	redialers uint64    // how many were made
	top       Tenant    // what holds the tenants that are in no other
	closing   []*Tenant // closed in the callback in progress: see endTenants
	dealer    *dealer   // nil: no tenant has a share
	pressure  pressure  // of budgets
	deals     uint64    // that the dealer made
	ends      bool      // inside endTenants
	onError   func(error)
	log       *slog.Logger
	debug     *debugger     // nil unless asked for
	hosted    bool          // a host watches PollFD, or a Waiter waits
	awaited   bool          // there was a Waiter
	waiters   []*Waiter     // those that Close stops
	work      *work         // nil unless SetTurnLimit was called
	turning   bool          // inside turn
	turns     uint64        // that there were
	dropped   int           // calls that Close did not run
	failing   bool          // inside a ConnectFailed with ErrLoopClosed
	locked    uint64        // the thread that Turn keeps its goroutine locked to; 0: none
	held      bool          // the goroutine is locked to its thread for the call in progress
	readied   bool          // see inner.Loop
	ending    *ending       // since Shutdown
	ended     chan struct{} // closed when that is over, or by Close
	told      bool          // ended has been closed
	closed    chan struct{} // closed by Close
	away      atomic.Int64  // connections that listeners here placed on other loops
	flush     time.Duration // see WithFlushTime
	thread    uint64        // that the loop's goroutine is locked to; 0: none
}

// The states of a Loop.
const (
	loopIdle    = iota // made, or Run has returned
	loopRunning        // inside Run or Turn
	loopClosing        // inside Close
	loopClosed
)

// runnable is an entry of the loop's queue.
type runnable interface{ run() }

// batchMax is how many I/O results one turn takes.
const batchMax = 256

// NewLoop makes a loop. Which backend drives it is decided by WithBackend, else by
// the environment variable WEIR_BACKEND, else by the platform's order of
// preference.
func NewLoop(opts ...LoopOption) (*Loop, error) {
	c := loopConfig{log: slog.Default(), flush: flushTime}
	for _, o := range opts {
		o(&c)
	}
	if c.err != nil {
		return nil, c.err
	}
	be := c.backend
	if be == nil {
		var err error
		if be, err = choice.Open(c.name, c.log); err != nil {
			return nil, err
		}
	}
	l := &Loop{
		bounds:   *defaultBounds(),
		be:       be,
		caps:     be.Caps(),
		base:     be.Wall(),
		done:     make([]backend.Completion, batchMax),
		watched:  map[int]*Watch{},
		sources:  map[Source]*sourceFeed{},
		resolver: c.resolver,
		onError:  c.onError,
		log:      c.log,
		ended:    make(chan struct{}),
		closed:   make(chan struct{}),
		flush:    c.flush,
	}
	if l.resolver == nil {
		l.resolver = hostsResolver{}
	}
	if c.debug {
		l.debug = newDebugger(l, c.slow)
	}
	l.top.loop = l
	l.top.node.Init(&l.top, nil)
	if c.budget != nil {
		l.top.account = c.budget.open(&l.top)
	}
	l.now = be.Now()
	return l, nil
}

// Run turns the loop on the calling goroutine until Stop is called, or until a Shutdown
// has come to its end. If the backend needs it, the goroutine is locked to its thread
// meanwhile. If Stop was called before Run, Run makes exactly one turn, without
// waiting. It returns nil after Stop or Shutdown, ErrLoopRunning inside Run,
// ErrLoopClosed after Close, or the backend's fatal error.
func (l *Loop) Run() error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	for {
		stopping := l.stop.Load()
		wait := time.Duration(-1)
		if stopping {
			wait = 0
		}
		if err := l.turn(wait); err != nil {
			return err
		}
		if l.stop.Load() {
			l.stop.Store(false)
			return nil
		}
		if l.ending != nil && l.ending.over {
			return nil
		}
	}
}

// Turn makes one turn and waits for I/O for at most wait: 0 does not wait, below 0
// waits for ever. It is for hosts, such as another loop that watches PollFD, and fails
// as Run does. A Stop applies to one Turn only, as it does to Run: that turn does not
// wait, and the next one may.
//
// If the backend needs to stay on one thread, the first Turn locks the goroutine to its
// thread until Close: otherwise each turn on a different thread would have to move the
// backend there.
func (l *Loop) Turn(wait time.Duration) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	if l.caps.Thread && l.locked == 0 {
		l.locked, l.held = l.thread, false // the lock stays
	}
	err := l.turn(wait)
	l.stop.Store(false)
	return err
}

func (l *Loop) enter() error {
	if !l.state.CompareAndSwap(loopIdle, loopRunning) {
		if l.state.Load() == loopClosed {
			return ErrLoopClosed
		}
		return ErrLoopRunning
	}
	if l.caps.Thread {
		l.holdThread()
	}
	if l.debug != nil {
		l.debug.enter()
	}
	return nil
}

func (l *Loop) leave() {
	if l.turning {
		l.cutShort()
	}
	if l.debug != nil {
		l.debug.leave()
	}
	if l.caps.Thread {
		l.letThread()
	}
	l.state.CompareAndSwap(loopRunning, loopIdle)
}

// turn is the loop. With a limit (SetTurnLimit) it may return in the middle; the next call
// then goes on from there.
func (l *Loop) turn(wait time.Duration) error {
	l.turning = true
	l.now = l.be.Now()
	l.settle() // what the host did since the last turn
	part := l.resume()
	if part == partTake {
		l.turns++
		l.takePosts()
	}
	if part <= partRead {
		if whole, err := l.readFirst(); !whole || err != nil {
			return l.pause(partRead, err)
		}
		l.takeTimers()
		l.settle()
		l.batch, l.ready = l.ready, l.batch[:0]
	}
	if part <= partRun && !l.runBatch() {
		return l.pause(partRun, nil)
	}
	if l.spent() {
		return l.pause(partWait, nil)
	}

	if l.stop.Load() || len(l.ready) > 0 || l.dealer != nil && l.dealer.waiting > 0 || len(l.early) > 0 || l.ending != nil && l.endOver() {
		wait = 0
	} else if d, ok := l.untilTimer(); ok && (wait < 0 || d < wait) {
		wait = d
	}
	if l.readied {
		l.readied = false
		runtime.Gosched()
	}
	began := l.be.Now()
	n, err := l.be.Wait(wait, l.room())
	if err == nil {
		l.now = l.be.Now()
		if n == 0 {
			l.seen = began
			if wait > 0 && l.now-began >= wait && l.now-began-wait < stallMin {
				l.seen = l.now // it waited its full time, and nothing was ready
			}
		}
		if l.work != nil {
			err = l.takeSome(n, l.now-began)
		} else {
			l.deliver(l.done[:n])
		}
		if l.ending != nil {
			l.endOver()
		}
	}
	l.turning = false
	return err
}

// runBatch runs what was in the queue when the turn began, from where the last call
// stopped. It reports whether all of it has run.
func (l *Loop) runBatch() bool {
	i := 0
	if l.work != nil {
		i, l.work.ran = l.work.ran, 0
	}
	deal := l.dealing()
	for ; i < len(l.batch); i++ {
		if l.work != nil {
			if l.spent() {
				l.work.ran = i
				return false
			}
		}
		r := l.batch[i]
		l.batch[i] = nil
		if deal != nil && deal.queued(r) {
			continue // it counts when it runs
		}
		if l.work != nil {
			l.work.did++
		}
		l.runOne(r)
		l.settle()
	}
	return true
}

// cutShort finishes what a turn still had to do when a callback ended its goroutine
// with runtime.Goexit, as testing's FailNow does. Queued calls stay queued; results are
// handed out now, since they do not outlast the turn.
func (l *Loop) cutShort() {
	l.turning, l.follows, l.lent = false, false, nil
	l.requeue()
	l.dirty = slices.DeleteFunc(l.dirty, func(s *stream) bool { return s == nil })
	first := l.dealer == nil || !l.dealer.cutShort() // the first is the one whose callback ended the goroutine
	for _, cs := range [...][]backend.Completion{l.taken, l.given} {
		for i := range cs {
			if cs[i].Op != nil && !first {
				l.handOut(&cs[i])
			}
			first = first && cs[i].Op == nil
			cs[i] = backend.Completion{}
		}
	}
	l.burst()
}

// requeue puts what is left of a turn that did not end back into the queue.
func (l *Loop) requeue() {
	var rest []runnable
	for i, r := range l.batch {
		if r != nil {
			rest = append(rest, r)
		}
		l.batch[i] = nil
	}
	l.ready = append(rest, l.ready...)
	if l.work != nil {
		l.work.part, l.work.ran = partTake, 0
	}
}

// stallMin is how late a Wait must return to count as held up: its results may then
// describe a moment long past.
const stallMin = 5 * time.Millisecond

// At most this many Waits with fewer than shortWait results come before a timer: a
// backend with more to report would have reported it.
const (
	shortWait  = 8
	shortWaits = 8
)

// readFirst takes in I/O that was ready before a timer that is due now: if the process
// did not get to run, because of a signal, a busy machine or a slow callback, that does
// not mean that its peers were silent. It costs a Wait, and only if a timer has come
// due since the last one. It reports whether it is done: a limit may stop it before, and
// the next call then goes on.
func (l *Loop) readFirst() (whole bool, err error) {
	most, short := 0, 0
	if w := l.work; w != nil && w.part == partRead {
		most, short, w.part = w.most, w.short, partTake
	} else {
		when, ok := l.timers.Min()
		if !ok || time.Duration(when) > l.now || time.Duration(when) <= l.seen {
			return true, nil
		}
		if s, ok := l.be.(backend.Sweeper); ok && l.now-time.Duration(when) >= stallMin {
			s.Sweep()
		}
		most = l.conns.n + l.endpoints.Len() + l.listeners.Len() + batchMax
	}
	// One Wait may have to follow another, for example if a first result arms a read. A
	// fair backend has served every connection once there are as many results as
	// connections; neither a flood nor one busy connection may hold up timers for
	// longer.
	for short < shortWaits && most > 0 {
		if l.spent() {
			l.work.most, l.work.short = most, short
			return false, nil
		}
		began, done := l.be.Now(), l.room()
		n, err := l.be.Wait(0, done)
		if err != nil {
			return false, err
		}
		l.now = l.be.Now()
		if n < min(shortWait, len(done)) {
			short++
			l.seen = began
		}
		if n == 0 && len(l.early) == 0 {
			break
		}
		most -= n + len(l.early)
		l.deliver(l.done[:n])
	}
	return true, nil
}

// deliver hands out results: first those that came early, then those of Wait.
func (l *Loop) deliver(done []backend.Completion) {
	l.early, l.taken, l.given = l.taken[:0], l.early, done
	if l.work != nil && l.dealer == nil {
		l.work.did += len(l.taken) + len(done)
	}
	for i := len(done) - 1; i >= 0; i-- {
		if c := &done[i]; !c.Op.Due {
			c.Op.Due, c.Last = true, true
		}
	}
	if l.dealer != nil {
		l.dealer.deal(l.taken, done)
		return
	}
	for _, cs := range [...][]backend.Completion{l.taken, done} {
		for i := range cs {
			c := &cs[i]
			l.follows = i+1 < len(cs) && cs[i+1].Op.Kind == backend.RecvFrom
			l.handOut(c)
			*c = backend.Completion{}
		}
	}
}

func (l *Loop) handOut(c *backend.Completion) {
	if c.Last {
		c.Op.Due = false
	}
	if l.debug != nil {
		l.debug.timed(c.Op.Owner, func() { c.Op.Owner.OpDone(c) })
	} else {
		c.Op.Owner.OpDone(c)
	}
	if len(l.bursts) > 0 && !l.follows {
		l.burst()
	}
	l.settle()
}

// burst sends what was sent inside the callbacks of datagrams that came together.
func (l *Loop) burst() {
	for i := 0; i < len(l.bursts); i++ {
		if w := l.bursts[i]; w != nil { // nil: an earlier call that was cut short had it
			l.bursts[i], w.listed = nil, false
			w.flush()
		}
	}
	l.bursts = l.bursts[:0]
}

// settle looks after the streams that a callback touched: it sends what was written,
// and arms or stops reading.
func (l *Loop) settle() {
	for i := 0; i < len(l.dirty); i++ {
		s := l.dirty[i]
		l.dirty[i] = nil
		s.flags &^= fDirty
		s.sync()
	}
	l.dirty = l.dirty[:0]
	if l.closing != nil {
		l.endTenants()
	}
}

func (l *Loop) runOne(r runnable) {
	if l.debug != nil {
		l.debug.timed(r, r.run)
		return
	}
	r.run()
}

// guard reports a panic in a callback that belongs to no connection. It is
// deferred around the callback.
func (l *Loop) guard(where string) {
	if v := recover(); v != nil {
		l.report(&PanicError{Where: where, Value: v, Stack: debug.Stack()})
	}
}

// report hands a failure that has no better place to the error handler, and survives a
// panic there.
func (l *Loop) report(err error) {
	if l.onError == nil {
		l.logError(err)
		return
	}
	defer func() {
		if v := recover(); v != nil {
			l.logError(err)
			l.logError(&PanicError{Where: "error handler", Value: v, Stack: debug.Stack()})
		}
	}()
	l.onError(err)
}

func (l *Loop) logError(err error) {
	var p *PanicError
	if errors.As(err, &p) {
		l.log.Error(err.Error(), "stack", string(p.Stack))
		return
	}
	l.log.Error(err.Error())
}

// Stop makes Run or Turn return after the turn in progress, or after the next one if
// there is none. Callbacks queued for later turns stay queued. Any goroutine may call
// it.
func (l *Loop) Stop() {
	l.stop.Store(true)
	l.be.Wake()
}

// Now is the loop's time: it is read once a turn before callbacks run, and again after
// waiting. It moves with the monotonic clock, whatever happens to the wall clock; in
// the simulator it is simulated.
func (l *Loop) Now() time.Time { return l.base.Add(l.now) }

// Connections is the number of open transports.
func (l *Loop) Connections() int { return l.conns.n }

// submit arms op. If the result is there at once, submit returns it and true.
func (l *Loop) submit(op *backend.Op) (c backend.Completion, ok bool) {
	if !l.be.Submit(op, &l.scratch) {
		return c, false
	}
	c, l.scratch = l.scratch, backend.Completion{}
	return c, true
}

// enqueue puts r into the next turn.
func (l *Loop) enqueue(r runnable) {
	l.ready = append(l.ready, r)
	l.stir()
}

// stir ends the Wait of a Waiter that cannot know of what a host's thread has just done
// between two turns.
func (l *Loop) stir() {
	if l.awaited && l.state.Load() == loopIdle {
		l.be.Wake()
	}
}

// Report hands a failure that belongs to no caller to the loop's error handler:
// see WithErrorHandler. Only the loop's goroutine may call it.
func (l *Loop) Report(err error) { l.report(err) }
