package weir

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/timers"
)

// Loop runs callbacks, timers and connections on one goroutine.
//
// One turn:
//
//	┌─▶ take posts and due timers into the queue
//	│   run what was in the queue when the turn began, in order
//	│   wait for I/O: not at all if more is queued, else until the next timer
//	└── run the I/O callbacks, in the order the backend reports them
//
// What a callback writes is sent when the callback has returned.
//
// Methods that are safe from any goroutine say so; all others belong to the
// goroutine that runs the loop, or to anyone while it does not run.
type Loop struct {
	be   backend.Backend
	caps backend.Caps
	base time.Time // the wall clock when be.Now was 0
	now  time.Duration

	timers  timers.Heap
	ready   []runnable // what the next turn runs
	batch   []runnable // what this turn runs
	dirty   []*stream  // streams to look after when the callback returns
	done    []backend.Completion
	scratch backend.Completion // where Submit puts a result: on the stack it would escape
	gather  gather
	one     [1][]byte            // what a direct write sends
	early   []backend.Completion // results that Submit had at once; the next turn's I/O
	taken   []backend.Completion // the same while they are handed out
	posts   atomic.Pointer[Call]
	stop    atomic.Bool
	state   atomic.Uint32

	conns     streamList
	listeners bag[*Listener]
	endpoints bag[*PacketEndpoint]
	attempts  bag[*Connector]
	lingerers bag[*lingerer]
	watches   bag[*Watch]
	feeds     bag[*sourceFeed]
	signals   bag[*SignalHandler]
	watched   map[int]*Watch         // by descriptor
	sources   map[Source]*sourceFeed // by source

	pool     chunkPool
	pipes    []*kernelPipe // free ones, for splices
	resolver Resolver
	onError  func(error)
	log      *slog.Logger
	debug    *debugger // nil unless asked for
	hosted   bool      // somebody watches PollFD
	locked   bool      // Turn locked its goroutine to its thread
	readied  bool      // see Readied
	thread   uint64    // see Thread
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

// New makes a loop. Which backend drives it is decided by WithBackend, else by
// the environment variable WEIR_BACKEND, else by the platform's order of
// preference.
func New(opts ...LoopOption) (*Loop, error) {
	c := loopConfig{log: slog.Default()}
	for _, o := range opts {
		o(&c)
	}
	be := c.backend
	if be == nil {
		var err error
		if be, err = openBackend(c.name, c.log); err != nil {
			return nil, err
		}
	}
	l := &Loop{
		be:       be,
		caps:     be.Caps(),
		base:     be.Wall(),
		done:     make([]backend.Completion, batchMax),
		watched:  map[int]*Watch{},
		sources:  map[Source]*sourceFeed{},
		resolver: c.resolver,
		onError:  c.onError,
		log:      c.log,
	}
	if l.resolver == nil {
		l.resolver = hostsResolver{}
	}
	if c.debug {
		l.debug = newDebugger(l, c.slow)
	}
	l.now = be.Now()
	return l, nil
}

// Run turns the loop on the calling goroutine until Stop. Where the backend
// needs it the goroutine is locked to its thread meanwhile. After Stop before
// Run it makes exactly one turn, without waiting. It returns nil after Stop,
// ErrLoopRunning inside Run, ErrLoopClosed after Close, or the backend's
// fatal error.
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
	}
}

// Turn makes one turn and waits for I/O at most for wait: 0 does not wait,
// below 0 waits for ever. It is for hosts, such as another loop that watches
// PollFD, and fails as Run does. A Stop ends with it, as it does with Run: the
// turn does not wait, and the next one may.
//
// Where the backend needs one thread, the first Turn locks the goroutine to its
// own until Close: turns from changing threads would cost a move each.
func (l *Loop) Turn(wait time.Duration) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	if l.caps.Thread && !l.locked {
		runtime.LockOSThread()
		l.locked = true
	}
	err := l.turn(wait)
	if planted != "turn-keeps-stop" {
		l.stop.Store(false)
	}
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
		runtime.LockOSThread()
		l.holdThread()
	}
	if l.debug != nil {
		l.debug.enter()
	}
	return nil
}

func (l *Loop) leave() {
	if l.debug != nil {
		l.debug.leave()
	}
	if l.caps.Thread {
		l.thread = 0
		runtime.UnlockOSThread()
	}
	l.state.CompareAndSwap(loopRunning, loopIdle)
}

// turn is the loop.
func (l *Loop) turn(wait time.Duration) error {
	l.now = l.be.Now()
	l.takePosts()
	l.takeTimers()
	l.settle()

	l.batch, l.ready = l.ready, l.batch[:0]
	for i, r := range l.batch {
		l.batch[i] = nil
		l.runOne(r)
		l.settle()
	}

	if l.stop.Load() || len(l.ready) > 0 || len(l.early) > 0 {
		wait = 0
	} else if d, ok := l.untilTimer(); ok && (wait < 0 || d < wait) {
		wait = d
	}
	if l.readied {
		l.readied = false
		runtime.Gosched()
	}
	n, err := l.be.Wait(wait, l.done)
	if err != nil {
		return err
	}
	l.now = l.be.Now()
	l.deliver(l.done[:n])
	return nil
}

// Readied tells the loop that a callback made a goroutine ready to run, so that
// the loop lets goroutines run before it next waits. The runtime does not see a
// loop that sleeps in the kernel for what it is at once, and leaves a goroutine
// that was readied on its processor waiting until it does.
func (l *Loop) Readied() { l.readied = true }

// deliver hands out results: those that came early, then those of Wait.
func (l *Loop) deliver(done []backend.Completion) {
	l.early, l.taken = l.taken[:0], l.early
	for i := len(done) - 1; i >= 0; i-- {
		if c := &done[i]; !c.Op.Due {
			c.Op.Due, c.Last = true, true
		}
	}
	for _, cs := range [...][]backend.Completion{l.taken, done} {
		for i := range cs {
			c := &cs[i]
			if c.Last {
				c.Op.Due = false
			}
			if l.debug != nil {
				l.debug.timed(c.Op.Owner, func() { c.Op.Owner.OpDone(c) })
			} else {
				c.Op.Owner.OpDone(c)
			}
			l.settle()
			*c = backend.Completion{}
		}
	}
}

// settle looks after the streams that a callback touched: what was written
// leaves, reading is armed or stopped.
func (l *Loop) settle() {
	for i := 0; i < len(l.dirty); i++ {
		s := l.dirty[i]
		l.dirty[i] = nil
		s.flags &^= fDirty
		s.sync()
	}
	l.dirty = l.dirty[:0]
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

// report hands a failure that has no better place to the error handler, and
// survives its panic.
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

// Stop makes Run return after the turn in progress, or the next one if none
// is, be it Run's or Turn's. Callbacks queued for later turns stay queued. Any
// goroutine may call it.
func (l *Loop) Stop() {
	l.stop.Store(true)
	l.be.Wake()
}

// Close ends the loop: every connection gets ConnectionLost(ErrLoopClosed),
// every connect fails with it, listeners, sources and signal handlers are
// removed and the backend is released. Posts that were accepted and had not
// run are reported to the error handler as one *DroppedError. It returns
// ErrLoopRunning while the loop runs, and an error that counts them if some
// of what was open did not end; again is nothing.
func (l *Loop) Close() error {
	if !l.state.CompareAndSwap(loopIdle, loopClosing) {
		if l.state.Load() == loopClosed {
			return nil
		}
		return ErrLoopRunning
	}
	if l.caps.Thread {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		l.holdThread()
		defer func() { l.thread = 0 }()
	}
	if l.debug != nil {
		l.debug.enter()
		defer l.debug.leave()
		l.debug.unclosed()
	}
	if l.locked {
		defer runtime.UnlockOSThread()
		l.locked = false
	}
	err := l.shutdown()
	l.state.Store(loopClosed)
	dropped := 0
	end := closedPosts
	if planted == "post-after-close" {
		end = nil
	}
	for c := l.posts.Swap(end); c != nil; c = c.next {
		if c.internal {
			c.run()
		} else if c.pending() {
			dropped++
		}
	}
	for _, r := range l.ready {
		if c, ok := r.(*Call); ok && c.pending() {
			dropped++
		}
	}
	l.ready = nil
	l.closePipes()
	l.timers.Clear()
	if dropped > 0 {
		l.report(&DroppedError{Callbacks: dropped})
	}
	return errors.Join(err, l.be.Close())
}

// shutdown ends what is open and turns the loop until all of it is gone.
func (l *Loop) shutdown() error {
	l.signals.each((*SignalHandler).Remove)
	l.feeds.each(func(f *sourceFeed) { _ = l.RemoveSource(f.s) })
	l.watches.each((*Watch).Remove)
	l.attempts.each(func(c *Connector) { c.fail(ErrLoopClosed) })
	l.listeners.each(func(ln *Listener) { _ = ln.Close() })
	l.endpoints.each(func(e *PacketEndpoint) { e.lose(ErrLoopClosed) })
	for s := l.conns.first; s != nil; s = s.next {
		s.lose(ErrLoopClosed)
	}
	l.lingerers.each((*lingerer).end)
	// Callbacks of the lost may open more: those are ended too.
	for range 1000 {
		queued := l.ready
		l.ready = nil
		for _, r := range queued {
			if s, ok := r.(*stream); ok {
				s.run()
				l.settle()
			} else if c, ok := r.(*Call); ok && c.internal {
				c.run()
			} else {
				l.ready = append(l.ready, r)
			}
		}
		for s := l.conns.first; s != nil; s = s.next {
			s.lose(ErrLoopClosed)
		}
		if l.conns.first == nil && l.listeners.len() == 0 && l.endpoints.len() == 0 && l.lingerers.len() == 0 && l.attempts.len() == 0 {
			return nil
		}
		wait := 10 * time.Millisecond
		if len(l.ready) > 0 {
			wait = 0
		}
		n, err := l.be.Wait(wait, l.done)
		if err != nil {
			return err
		}
		l.deliver(l.done[:n])
	}
	return fmt.Errorf("weir: closing the loop: %d connections, %d listeners, %d datagram endpoints and %d connects did not end",
		l.conns.n, l.listeners.len(), l.endpoints.len(), l.attempts.len())
}

// DroppedError tells the error handler of callbacks that were accepted and
// never ran, because the loop was closed.
type DroppedError struct{ Callbacks int }

func (e *DroppedError) Error() string {
	return "weir: loop closed with " + itoa(e.Callbacks) + " callbacks queued"
}

// Unwrap returns ErrLoopClosed.
func (e *DroppedError) Unwrap() error { return ErrLoopClosed }

// Now is the loop's time: taken once a turn before callbacks run, and again
// after waiting. It moves with the monotonic clock, whatever happens to the
// wall clock, and is simulated in the simulator.
func (l *Loop) Now() time.Time { return l.base.Add(l.now) }

// Next says how long a host may wait before it must call Turn even if PollFD
// stays quiet: 0 if callbacks are queued or Stop was called, false if there is
// no timer or the loop is closed.
func (l *Loop) Next() (time.Duration, bool) {
	if l.state.Load() == loopClosed {
		return 0, false
	}
	if len(l.ready) > 0 || len(l.dirty) > 0 || len(l.early) > 0 || l.posts.Load() != nil || l.stop.Load() {
		return 0, true
	}
	return l.untilTimer()
}

// PollFD is a descriptor that is readable when a Turn has something to do, or
// -1 where the backend has none or the loop is closed. It must only be watched,
// never read.
//
// From the first call on the loop is a guest: posts make the descriptor
// readable. The host then calls Turn(0) when it is readable and when the time
// that Next tells has passed.
func (l *Loop) PollFD() int {
	if l.state.Load() == loopClosed {
		return -1
	}
	if h, ok := l.be.(backend.Hosted); ok && !l.hosted {
		l.hosted = true
		h.Host(true)
	}
	return l.caps.PollFD
}

// BackendInfo says which backend serves a loop.
type BackendInfo struct {
	Name   string   // "epoll", "epoll-et", "uring", "portable", "sim"
	Probed []string // what was found out when it started, for people
}

// Backend says which backend serves the loop. Any goroutine may call it.
func (l *Loop) Backend() BackendInfo {
	return BackendInfo{Name: l.caps.Name, Probed: append([]string(nil), l.caps.Probed...)}
}

// Connections is how many transports are open.
func (l *Loop) Connections() int { return l.conns.n }

// submit arms op. Where the result is there at once it returns it and true.
func (l *Loop) submit(op *backend.Op) (c backend.Completion, ok bool) {
	if !l.be.Submit(op, &l.scratch) {
		return c, false
	}
	c, l.scratch = l.scratch, backend.Completion{}
	return c, true
}

// enqueue puts r into the next turn.
func (l *Loop) enqueue(r runnable) { l.ready = append(l.ready, r) }

// Report hands a failure that belongs to no caller to the loop's error handler:
// see WithErrorHandler. Only the loop's goroutine may call it.
func (l *Loop) Report(err error) { l.report(err) }
