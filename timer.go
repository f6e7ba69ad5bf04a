package weir

import (
	"math"
	"time"

	"github.com/weir-io/weir/internal/timers"
)

// Timer calls a function at a time of the loop's clock. It remembers its
// interval and can be used again and again. Its methods belong to the loop's
// goroutine. It never fires early; equal deadlines fire in the order they were
// set.
//
//	         Set Start Again          due             its turn
//	stopped ─────────────────▶ set ─────────▶ queued ──────────▶ stopped
//	   ▲                        │               │                (repeating: set)
//	   └────────── Stop ────────┴───── Stop ────┘
type Timer struct {
	node   timers.Timer
	loop   *Loop
	tenant *Tenant
	fn     func()
	every  time.Duration // the interval
	due    int64         // the deadline it was last set to, on the backend's clock
	fired  int64         // the deadline whose callback is running, while inside
	repeat bool
	queued bool // due, and waiting in the loop's queue
	inside bool // its callback is running
	bound  bool // in its tenant's bag
	at     int  // in its tenant's bag
}

// NewTimer makes a stopped timer.
func (l *Loop) NewTimer(fn func()) *Timer { return l.newTimer(fn, nil) }

func (l *Loop) newTimer(fn func(), tn *Tenant) *Timer {
	t := &Timer{loop: l, fn: fn, tenant: tn}
	t.node.Owner = (*dueTimer)(t)
	return t
}

// After calls fn once after d, or in the next turn if d is 0 or below.
func (l *Loop) After(d time.Duration, fn func()) *Timer {
	t := l.NewTimer(fn)
	t.Set(d)
	return t
}

// At calls fn once at a time of the loop's clock: see Now. A time.Time with a
// monotonic reading is compared by that.
func (l *Loop) At(at time.Time, fn func()) *Timer {
	t := l.NewTimer(fn)
	t.SetAt(at)
	return t
}

// Set makes the timer fire once after d, and makes d its interval.
func (t *Timer) Set(d time.Duration) {
	if t.loop.check("Timer.Set") != nil {
		return
	}
	t.repeat = false
	t.every = d
	t.set(after(t.loop.be.Now(), d))
}

// SetAt makes the timer fire once at a time of the loop's clock; the interval
// becomes the time until then.
func (t *Timer) SetAt(at time.Time) {
	if t.loop.check("Timer.SetAt") != nil {
		return
	}
	t.repeat = false
	due := at.Sub(t.loop.base)
	t.every = due - t.loop.be.Now()
	t.set(int64(due))
}

// Repeat makes the timer fire every d, beginning after d. It stays in phase: when a
// callback takes longer than d, the ticks it missed are skipped. d must be above 0;
// otherwise it counts as a nanosecond.
func (t *Timer) Repeat(d time.Duration) {
	if t.loop.check("Timer.Repeat") != nil {
		return
	}
	t.repeat = true
	t.every = max(d, 1)
	t.set(after(t.loop.be.Now(), t.every))
}

// Start sets the timer with its interval if it is stopped, and reports whether
// it was.
func (t *Timer) Start() bool {
	if t.Running() {
		return false
	}
	t.Again()
	return true
}

// Again sets the timer once more with its interval, counted from now or, in its own
// callback, from the moment it was due, so that it stays in phase.
func (t *Timer) Again() {
	if t.loop.check("Timer.Again") != nil {
		return
	}
	from := t.loop.be.Now()
	if t.inside {
		from = time.Duration(t.fired)
	}
	t.set(after(from, t.every))
}

// Stop keeps the timer from firing. It reports false if it has fired or was
// stopped.
func (t *Timer) Stop() bool {
	if t.loop.check("Timer.Stop") != nil {
		return false
	}
	was := t.Running()
	t.loop.timers.Remove(&t.node)
	t.queued = false
	t.unbind()
	return was
}

// Running reports whether the timer is set and has not fired.
func (t *Timer) Running() bool { return t.queued || t.node.Pending() }

// Interval is what Set or Repeat was given.
func (t *Timer) Interval() time.Duration { return t.every }

// after adds without overflow; a past time is now.
func after(now, d time.Duration) int64 {
	switch {
	case d <= 0:
		return int64(now)
	case int64(d) > math.MaxInt64-int64(now):
		return math.MaxInt64
	}
	return int64(now + d)
}

func (t *Timer) set(due int64) {
	if t.tenant != nil {
		if t.tenant.gone.Load() {
			return
		}
		if !t.bound {
			t.bound = true
			t.tenant.timers.Add(t, &t.at)
		}
	}
	t.queued = false
	t.due = due
	t.loop.timers.Set(&t.node, due)
	t.loop.stir()
}

func (t *Timer) unbind() {
	if t.bound {
		t.bound = false
		t.tenant.timers.Remove(&t.at)
	}
}

// dueTimer is a Timer as the heap sees it.
type dueTimer Timer

var _ timers.Owner = (*dueTimer)(nil)

func (d *dueTimer) Due(*timers.Timer) {
	t := (*Timer)(d)
	t.queued = true
	t.loop.enqueue(t)
}

// run fires the timer.
func (t *Timer) run() {
	if !t.queued {
		return // stopped or set again while it waited
	}
	t.queued = false
	t.fired = t.due
	if t.tenant != nil && t.tenant.gone.Load() {
		t.unbind()
		return
	}
	if t.repeat {
		next := t.due + int64(t.every)
		if now := int64(t.loop.be.Now()); next <= now {
			next += (now - next) / int64(t.every) * int64(t.every)
			if next <= now {
				next += int64(t.every)
			}
		}
		t.set(next)
	} else {
		t.unbind()
	}
	t.fire()
}

func (t *Timer) fire() {
	t.inside = true
	defer t.loop.guard("timer")
	defer func() { t.inside = false }()
	t.fn()
}

// takeTimers queues what is due.
func (l *Loop) takeTimers() {
	for {
		n := l.timers.Pop(int64(l.now))
		if n == nil {
			return
		}
		n.Owner.Due(n)
	}
}

// untilTimer is how long it is until the next timer; false if there is none.
func (l *Loop) untilTimer() (time.Duration, bool) {
	when, ok := l.timers.Min()
	if !ok {
		return 0, false
	}
	return max(0, time.Duration(when)-l.be.Now()), true
}
