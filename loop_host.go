package weir

import (
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/choice"
	"github.com/weir-io/weir/internal/inner"
	"github.com/weir-io/weir/internal/machine"
	"github.com/weir-io/weir/internal/sys"
)

// Backends lists the names of the backends in order of preference: those that imports
// added (see package driver), then the platform's. WEIR_BACKEND and WithBackendName
// take one of them.
func Backends() []string { return choice.Names() }

// Next says how long a host may wait before it must call Turn even if PollFD
// stays quiet: 0 if callbacks are queued, a turn has stopped at its limit
// (SetTurnLimit) or Stop was called, false if there is no timer or the loop is
// closed.
func (l *Loop) Next() (time.Duration, bool) {
	if l.state.Load() == loopClosed {
		return 0, false
	}
	if l.paused() || len(l.ready) > 0 || len(l.dirty) > 0 || len(l.early) > 0 || l.tenantsBusy() || l.posts.Load() != nil || l.stop.Load() {
		return 0, true
	}
	return l.untilTimer()
}

// PollFD is a descriptor that is readable when a Turn has something to do, or
// -1 where the backend has none (portable, and the simulator) or the loop is
// closed. It must only be watched, never read. NewWaiter and Guest are for hosts
// that need no descriptor.
//
// After the first call the loop is a guest: posts make the descriptor readable. The
// host then calls Turn(0) when the descriptor is readable and when the time returned by
// Next has passed.
func (l *Loop) PollFD() int {
	if l.state.Load() == loopClosed {
		return -1
	}
	if h, ok := l.be.(backend.Hosted); ok && !l.hosted {
		l.hosted = true
		h.Host(true)
		l.caps.PollFD = l.be.Caps().PollFD
	}
	return l.caps.PollFD
}

// BackendInfo says which backend serves a loop.
type BackendInfo struct {
	Name   string   // "epoll", "epoll-et", "uring", "iocp", "portable", "sim"
	Probed []string // what was found out when it started, in words
	// Packets says what is told of datagrams.
	Packets PacketFields
}

// Backend says which backend serves the loop. Any goroutine may call it.
func (l *Loop) Backend() BackendInfo {
	return BackendInfo{Name: l.caps.Name, Probed: append([]string(nil), l.caps.Probed...), Packets: packetFields(l.caps.Info, l.caps.Name)}
}

// ErrNoPollFD is returned by NewWaiter and Guest if there is no way to wait for the
// loop's backend from outside: if a backend from elsewhere (package driver) offers none,
// and by NewWaiter in the simulator, which has no goroutines.
var ErrNoPollFD = errors.New("weir: this backend cannot be waited for from outside")

// Waiter waits, on a goroutine or thread of the host's, until a loop needs a turn: for
// hosts that cannot watch a descriptor, or backends that have none (see PollFD). Guest is
// the ready-made use of one.
//
//	host's goroutine            the loop's
//	Wait(d) ──true──▶ ask for a turn ──▶ Turn(0)
//	   ▲                                   │
//	   └────────── d ◀── Next ◀────────────┘
//
// Wait comes after a Turn, or at the beginning, and not during one: it may then return
// for what that Turn is about to do.
type Waiter struct {
	fd     int             // what poll waits for
	poll   *sys.PollWaiter // nil: wait has no descriptor
	wait   backend.Awaiter
	prompt backend.Prompter // a Guest's in the simulator: nothing waits
	quit   chan struct{}

	mu      sync.Mutex
	waiting bool // inside Wait
	stopped bool
}

// NewWaiter makes a Waiter for the loop, which from then on is a guest: see PollFD. Stop
// releases what it holds (on Unix, two descriptors); so does the loop's Close. Only the
// loop's goroutine may call it.
func (l *Loop) NewWaiter() (*Waiter, error) {
	if err := l.check("NewWaiter"); err != nil {
		return nil, err
	}
	if l.state.Load() >= loopClosing {
		return nil, ErrLoopClosed
	}
	w := &Waiter{fd: l.PollFD(), quit: make(chan struct{})}
	if a, ok := l.be.(backend.Awaiter); ok {
		w.wait = a
	} else {
		if w.fd < 0 {
			return nil, ErrNoPollFD
		}
		var err error
		if w.poll, err = sys.NewPollWaiter(); err != nil {
			if errors.Is(err, errors.ErrUnsupported) {
				err = ErrNoPollFD
			}
			return nil, err
		}
	}
	l.awaited = true
	l.keepWaiter(w)
	return w, nil
}

// keepWaiter has Close stop w.
func (l *Loop) keepWaiter(w *Waiter) {
	kept := l.waiters[:0]
	for _, old := range l.waiters {
		if !old.over() {
			kept = append(kept, old)
		}
	}
	l.waiters = append(kept, w)
}

// Wait returns true when the loop needs a turn or d has passed, which is what Next
// returned; below 0 it waits as long as it takes. It may return true for nothing, now and
// then. After Stop, or the loop's Close, it returns false, and so does a Wait in progress.
// One goroutine at a time may call it.
func (w *Waiter) Wait(d time.Duration) bool {
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return false
	}
	w.waiting = true
	w.mu.Unlock()
	if w.poll != nil {
		w.poll.Wait(w.fd, d)
	} else {
		w.wait.Await(d, w.quit)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = false
	if w.stopped && w.poll != nil {
		w.poll.Close()
	}
	return !w.stopped
}

// Stop ends the waiting for good. Any goroutine may call it; calling it again has no
// effect.
func (w *Waiter) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	w.stopped = true
	close(w.quit)
	switch {
	case w.prompt != nil:
		w.prompt.Prompt(nil)
	case w.poll == nil:
	case w.waiting:
		w.poll.Quit() // Wait closes it
	default:
		w.poll.Close()
	}
}

// rearm has the simulator call due once more.
func (w *Waiter) rearm(due func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.prompt.Prompt(due)
	}
}

func (w *Waiter) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopped
}

// Guest runs the loop inside a host that calls you and cannot watch a descriptor: the
// Win32 message pump, CFRunLoop, a game's main loop. A goroutine waits for something to
// do and then calls post, once, with a turn function that the host must call on the
// thread that the loop belongs to; the goroutine then waits again. In the simulator the
// world calls post itself. A turn waits for nothing; SetTurnLimit bounds what it does.
//
// What that thread does between two turns, such as a Write or the setting of a timer, has a
// turn posted too.
//
// stop ends the waiting; it may be called from any goroutine, and a turn that was posted
// before does nothing afterwards. So does the loop's Close. A turn that fails ends the
// waiting, and the error handler gets the error.
func (l *Loop) Guest(post func(turn func())) (stop func(), err error) {
	if err := l.check("Guest"); err != nil {
		return nil, err
	}
	g := &guest{loop: l, next: make(chan time.Duration, 1)}
	if p, ok := l.be.(backend.Prompter); ok {
		if l.state.Load() >= loopClosing {
			return nil, ErrLoopClosed
		}
		g.w = &Waiter{prompt: p, quit: make(chan struct{})}
		l.keepWaiter(g.w)
		g.due = func() { post(g.turn) }
		p.Prompt(g.due)
		return g.w.Stop, nil
	}
	if g.w, err = l.NewWaiter(); err != nil {
		return nil, err
	}
	// not simulated: the host's thread and this one are real.
	go func() {
		for {
			g.asked.Store(true)
			post(g.turn)
			select { // not simulated: as above.
			case d := <-g.next:
				if !g.w.Wait(d) {
					return
				}
			case <-g.w.quit:
				return
			}
		}
	}()
	return g.w.Stop, nil
}

// guest is a loop that gets its turns from a host.
type guest struct {
	loop  *Loop
	w     *Waiter
	asked atomic.Bool        // a turn was posted and has not run
	next  chan time.Duration // how long to wait after it
	until time.Duration      // when that wait ends; below 0: never
	due   func()             // in the simulator: posts a turn
}

// turn is what the host calls.
func (g *guest) turn() {
	if g.w.over() {
		return
	}
	if err := g.loop.Turn(0); err != nil {
		g.loop.report(err)
		g.w.Stop()
		return
	}
	if g.due != nil {
		g.w.rearm(g.due)
		return
	}
	d, ok := g.loop.Next()
	until := time.Duration(-1)
	switch {
	case !ok:
		d = -1
	case d == 0:
		until = 0
	default:
		until = g.loop.be.Now() + d
	}
	// not simulated: only a waiting goroutine has turns from here on.
	if g.asked.Swap(false) {
		g.until = until
		g.next <- d // it has room: the goroutine takes one for each post
		return
	}
	// The host has called it once more than it was posted, and the goroutine waits already.
	// If that is too long now, it begins again; this turn may have taken an earlier wake
	// from it.
	if until >= 0 && (g.until < 0 || until < g.until-time.Millisecond) {
		g.loop.be.Wake()
	}
}

// TurnLimit bounds the work of one Turn, so that a host has its thread back in time for
// its own next frame. A limit that is 0 does not apply.
type TurnLimit struct {
	// Time is how long after its beginning a turn may still start a callback. The time that
	// it waits does not count. Results of I/O are taken eight at a time: those that were
	// taken are handed out, even if it is late by then.
	Time time.Duration
	// Calls is how many callbacks a turn makes: queued ones, timers, results of I/O.
	// Results that a callback's own call had at once are handed out too, beyond the limit.
	// While tenants have shares, so are results that cannot wait for their tenant's turn, and
	// one callback of a tenant after those of none.
	Calls int
}

// SetTurnLimit bounds each turn from now on; the zero TurnLimit ends that. A turn that
// reaches its limit returns in the middle, after at least one callback. The next one goes
// on where it stopped, so the order of callbacks is the same as without a limit, and
// meanwhile Next returns 0. A limit below 0 is an *OptionError. Only the loop's goroutine
// may call it.
func (l *Loop) SetTurnLimit(m TurnLimit) error {
	if err := l.check("SetTurnLimit"); err != nil {
		return err
	}
	switch {
	case m.Time < 0:
		return &OptionError{Option: "SetTurnLimit", Value: m.Time.String(), Range: notNegative}
	case m.Calls < 0:
		return &OptionError{Option: "SetTurnLimit", Value: strconv.Itoa(m.Calls), Range: notNegative}
	}
	if l.work == nil {
		l.work = &work{}
	}
	l.work.limit = m
	return nil
}

// TurnLimit is what SetTurnLimit was given; the zero TurnLimit if turns have no limit. Only
// the loop's goroutine may call it.
func (l *Loop) TurnLimit() TurnLimit {
	if l.work == nil {
		return TurnLimit{}
	}
	return l.work.limit
}

// work is how far a turn with a limit has come.
type work struct {
	limit TurnLimit
	until time.Duration // by limit.Time
	did   int           // callbacks of this turn
	more  bool          // it left results in the backend

	part        part // where the next turn goes on
	ran         int  // partRun: how many of the batch have run
	most, short int  // partRead: see readFirst
}

// part is a part of a turn.
type part uint8

const (
	partTake part = iota // take posts: a turn begins
	partRead             // I/O that may have been there before a timer was due
	partRun              // callbacks and timers
	partWait             // wait for I/O, and hand it out
)

// workStep is how many results of I/O are taken at a time while there is a limit.
const workStep = 8

// resume begins a turn, or goes on with one, and returns with which part.
func (l *Loop) resume() part {
	w := l.work
	if w == nil {
		return partTake
	}
	p := w.part
	if p != partRead {
		w.part = partTake
	}
	w.did, w.more, w.until = 0, false, l.now+w.limit.Time
	return p
}

// pause ends a turn at its limit, or with an error.
func (l *Loop) pause(p part, err error) error {
	if err == nil {
		l.work.part = p
	}
	l.turning = false
	return err
}

// spent reports whether the turn has reached its limit.
func (l *Loop) spent() bool {
	w := l.work
	return w != nil && w.did > 0 &&
		(w.limit.Calls > 0 && w.did >= w.limit.Calls || w.limit.Time > 0 && l.be.Now() >= w.until)
}

// room is where a Wait puts its results.
func (l *Loop) room() []backend.Completion {
	w := l.work
	if w == nil || w.limit == (TurnLimit{}) {
		return l.done[:l.pressure.results()]
	}
	n := min(workStep, l.pressure.results())
	if w.limit.Calls > 0 {
		n = min(n, max(w.limit.Calls-w.did, 1))
	}
	return l.done[:n]
}

// takeSome hands out the n results of a Wait that took a while, and takes more of them
// until the limit is reached.
func (l *Loop) takeSome(n int, waited time.Duration) error {
	l.work.until += waited
	for sum := n; ; {
		full := n == len(l.room()) && n < batchMax
		l.deliver(l.done[:n])
		switch {
		case !full || sum >= batchMax:
			return nil
		case l.spent():
			l.work.more = true
			return nil
		}
		var err error
		if n, err = l.be.Wait(0, l.room()); err != nil {
			return err
		}
		l.now = l.be.Now()
		sum += n
	}
}

// paused reports whether the next turn has something to do because of the limit.
func (l *Loop) paused() bool { return l.work != nil && (l.work.part != partTake || l.work.more) }

// What coroutines (iter.Pull) need to know about the loop that they run on. The runtime
// ends the program if a coroutine is resumed on a different thread from the one it was
// made on, or at a different depth of thread locks, and either of the two threads was
// locked; so code that resumes a coroutine asks first, and the loop locks once, never
// twice.

// innerLoop is a Loop as packages task, netconn and process see it.
type innerLoop Loop

var _ inner.Loop = (*innerLoop)(nil)

func init() {
	inner.Provide(func(loop any) inner.Loop {
		if l, ok := loop.(interface{ itself() *Loop }); ok {
			return (*innerLoop)(l.itself())
		}
		return nil
	})
}

// itself finds the loop in a value of another package that embeds it.
func (l *Loop) itself() *Loop { return l }

func (l *innerLoop) Thread() uint64 { return l.thread }
func (l *innerLoop) Readied()       { l.readied = true }

func (l *innerLoop) Together(on bool) (was bool) {
	was, l.follows = l.follows, on
	if !on {
		(*Loop)(l).burst()
	}
	return was
}

func (l *innerLoop) Machine() machine.Host {
	if s := (*Loop)(l).simulated(); s != nil {
		return s.Machine()
	}
	return nil
}

func (l *innerLoop) Switched(task string) {
	if l.debug != nil && l.debug.owner.Load() != 0 {
		l.debug.enter()
		l.debug.switched(task)
	}
}

// holdThread locks the goroutine to its thread, and records which thread that is. The
// goroutine that Turn keeps locked is locked already: no other runs on its thread.
func (l *Loop) holdThread() {
	if l.locked == 0 || sys.ThreadID() != l.locked {
		runtime.LockOSThread()
		l.held = true
	}
	l.thread = sys.ThreadID()
}

// letThread undoes holdThread.
func (l *Loop) letThread() {
	l.thread = 0
	if l.held {
		l.held = false
		runtime.UnlockOSThread()
	}
}
