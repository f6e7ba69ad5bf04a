package layer

import (
	"errors"
	"fmt"
	"time"

	"github.com/weir-io/weir"
)

// IdleConfig says when a connection is dropped for lack of traffic. A zero
// limit is disabled.
type IdleConfig struct {
	// Idle is how long nothing may pass in either direction (behaviour 85). A
	// backlog that leaves slowly counts as traffic.
	Idle time.Duration
	// WriteStall is how long bytes may wait to be sent while none of them
	// leaves because the peer does not read. It is checked four times in that
	// period, so up to a quarter more may pass.
	WriteStall time.Duration
	// MinRate is how many bytes a second must come from the peer, on average
	// over each Window, from the beginning of the connection. It guards against
	// peers that send a byte now and then, on connections where the peer always
	// has something to send; a peer that sends nothing is too slow. While what
	// is above wants no bytes, the window's time stands still. A zero Window
	// means 10 s.
	MinRate int64
	Window  time.Duration
}

// IdleProblem says in words which limit of Idle was reached.
type IdleProblem string

// The problems.
const (
	NothingPassed IdleProblem = "idle"          // IdleConfig.Idle
	WriteStalled  IdleProblem = "write stalled" // IdleConfig.WriteStall
	TooSlow       IdleProblem = "too slow"      // IdleConfig.MinRate; After is its window
)

// IdleError is the reason when Idle dropped a connection. It also matches
// ErrTimeout.
type IdleError struct {
	What  IdleProblem   // which limit was reached
	After time.Duration // the limit
}

func (e *IdleError) Error() string { return fmt.Sprintf("%s for %v", e.What, e.After) }

// Unwrap returns ErrTimeout.
func (e *IdleError) Unwrap() error { return ErrTimeout }

// Idle returns a layer that drops connections on which nothing moves. Traffic
// costs it one comparison: its timer is moved only when it fires early.
func Idle(c IdleConfig) Layer {
	if c.Window <= 0 {
		c.Window = 10 * time.Second
	}
	return func(a Above) Above {
		return Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			w := &watcher{c: c}
			return w.Init(w, "idle", a)
		}}
	}
}

// watcher leaves silence to the transport below, and has one timer for everything
// else, set for whatever is due first.
type watcher struct {
	Base
	c     IdleConfig
	timer *weir.Timer
	due   time.Time // what it is set for

	written  int64     // bytes given to what is below
	sent     int64     // of them, how many had left at the last check
	sentAt   time.Time // when a check last found that some had left, or that none waited
	in       int64     // bytes that came in this window
	windowAt time.Time // when this window began, later by the time in which it stood still
	stillAt  time.Time // since when what is above has wanted no bytes; zero: it wants them
	over     bool      // the peer has ended its direction: it need not be fast
}

var (
	_ weir.Protocol    = (*watcher)(nil)
	_ weir.EOFReceiver = (*watcher)(nil)
	_ weir.Carrier     = (*watcher)(nil)

	_ weir.IdleReceiver = (*watcher)(nil)
)

func (w *watcher) ConnectionMade(t weir.Transport) {
	w.Begin(t)
	now := t.Loop().Now()
	w.sentAt, w.windowAt = now, now
	w.timer = t.Loop().NewTimer(w.look)
	if w.c.Idle > 0 {
		below, ok := weir.As[weir.IdleTimer](t)
		if !ok {
			w.Fail(errNoIdleTimer)
			return
		}
		if err := below.SetIdleTimeout(weir.DirectionBoth, w.c.Idle); err != nil {
			w.Fail(err)
			return
		}
	}
	w.arm(now)
	w.Ready()
}

// errNoIdleTimer is the failure over a transport that weir did not make.
var errNoIdleTimer = fmt.Errorf("the transport below cannot tell of silence (weir.IdleTimer): %w", errors.ErrUnsupported)

// ConnectionIdle drops the connection; a silence that is another's to judge is passed over.
func (w *watcher) ConnectionIdle(d weir.Direction) {
	if d == weir.DirectionBoth && w.c.Idle > 0 {
		w.lose(NothingPassed, w.c.Idle)
	}
}

func (w *watcher) DataReceived(p []byte) (int, error) {
	w.in += int64(len(p))
	return w.Base.DataReceived(p)
}

func (w *watcher) EOFReceived(unused int) (bool, error) {
	w.over = true
	return w.Base.EOFReceived(unused)
}

func (w *watcher) Write(bufs [][]byte) (int, error) {
	idle := w.Below().Buffered() == 0
	n, err := w.Base.Write(bufs)
	w.written += int64(n)
	now := w.Below().Loop().Now()
	if n > 0 && idle {
		w.sentAt = now // it starts waiting now
		w.watchWrite(now)
	}
	return n, err
}

// watchWrite sets the timer for an early check, now that bytes may have to
// wait. If the timer already fires sooner, it is left alone.
func (w *watcher) watchWrite(now time.Time) {
	if soon := now.Add(w.c.WriteStall / 4); w.c.WriteStall > 0 && (!w.timer.Running() || w.due.After(soon)) {
		w.set(soon, now)
	}
}

func (w *watcher) set(at, now time.Time) {
	w.due = at
	w.timer.Set(at.Sub(now))
}

func (w *watcher) PauseReading() {
	if w.stillAt.IsZero() {
		w.stillAt = w.Below().Loop().Now()
	}
	w.Base.PauseReading()
}

func (w *watcher) ResumeReading() {
	if !w.stillAt.IsZero() {
		now := w.Below().Loop().Now()
		w.windowAt = w.windowAt.Add(now.Sub(w.stillAt))
		w.stillAt = time.Time{}
		if end := w.windowAt.Add(w.c.Window); w.measures() && (!w.timer.Running() || w.due.After(end)) {
			w.set(end, now)
		}
	}
	w.Base.ResumeReading()
}

// measures reports whether the window's time is running.
func (w *watcher) measures() bool { return w.c.MinRate > 0 && !w.over && w.stillAt.IsZero() }

func (w *watcher) ConnectionLost(err error) {
	w.over = true
	w.timer.Stop()
	w.Base.ConnectionLost(err)
}

// progress records what has left since the last check.
func (w *watcher) progress(now time.Time) (waiting bool) {
	buffered := int64(w.Below().Buffered())
	sent := w.written - buffered
	if sent != w.sent || buffered == 0 {
		w.sent, w.sentAt = sent, now
	}
	return buffered > 0
}

// look drops the connection if one of its limits is reached, and otherwise
// waits for the next one.
func (w *watcher) look() {
	now := w.Below().Loop().Now()
	waiting := w.progress(now)
	switch {
	case waiting && w.c.WriteStall > 0 && !now.Before(w.sentAt.Add(w.c.WriteStall)):
		w.lose(WriteStalled, w.c.WriteStall)
	case w.slow(now):
		w.lose(TooSlow, w.c.Window)
	default:
		w.arm(now)
	}
}

func (w *watcher) lose(what IdleProblem, after time.Duration) {
	w.Fail(&IdleError{What: what, After: after})
}

// slow ends a window whose time is up, and reports whether too little came in
// it.
func (w *watcher) slow(now time.Time) bool {
	if !w.measures() || now.Before(w.windowAt.Add(w.c.Window)) {
		return false
	}
	in := w.in
	w.in, w.windowAt = 0, now
	return float64(in) < float64(w.c.MinRate)*w.c.Window.Seconds()
}

// arm sets the timer for the earliest limit that can be reached.
func (w *watcher) arm(now time.Time) {
	var at time.Time
	earliest := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if w.measures() {
		earliest(w.windowAt.Add(w.c.Window))
	}
	if w.c.WriteStall > 0 && w.Below().Buffered() > 0 {
		// Check in between, because only two checks tell when bytes left.
		earliest(now.Add(w.c.WriteStall / 4))
	}
	if !at.IsZero() {
		w.set(at, now)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
