package task

import (
	"time"

	"github.com/weir-io/weir/future"
)

// awaiting is a future as a Waitable.
type awaiting[T any] struct{ f *future.Future[T] }

var _ Waitable = awaiting[int]{}

// Abandon implements Waitable: Await does what is needed, later, because the future may
// still settle in this turn.
func (awaiting[T]) Abandon(*Task) {}

func (awaiting[T]) WaitingFor() string { return "a future" }

// Await waits until f has settled, and returns its value or failure. If the wait is cut
// short, f is canceled unless someone else waits for it, and Await returns
// future.ErrCanceled; Await future.Shield(f) to leave f alone. A value that f gets in
// the turn of the cancellation is not lost: it is returned.
func Await[T any](t *Task, f *future.Future[T]) (T, error) {
	var zero T
	canceled := t.Scope().Canceled()
	if !canceled {
		if v, err, ok := f.Result(); ok {
			return v, err
		}
	}
	tag := t.tag
	f.Watch(t, tag)
	err := t.Park(awaiting[T]{f})
	if err == nil {
		v, err, _ := f.Result()
		return v, err
	}
	if !canceled {
		if v, err, ok := f.Result(); ok && err == nil {
			f.Unwatch(t, tag)
			return v, nil
		}
	}
	if others, _ := f.Unwatch(t, tag); others == 0 {
		f.Cancel()
	}
	return zero, err
}

// Join waits for a task's end and returns its error. If the wait is cut short,
// the other task goes on.
func (t *Task) Join(other *Task) error {
	_, err := Await(t, future.Shield(other.Done()))
	return err
}

// Yield lets everything else that is ready run first: t goes on in the next
// turn.
func (t *Task) Yield() error {
	if t.own.w.current != t {
		return ErrOutside
	}
	if t.cur.Canceled() {
		t.turn()
		return t.cancellation()
	}
	t.state = stateQueued
	t.own.w.s.Enqueue(t)
	t.co.yield(struct{}{})
	t.own.w.tell()
	return nil
}

// sleeper is a task in the role of the Waitable that it sleeps on.
type sleeper Task

var _ Waitable = (*sleeper)(nil)

func (s *sleeper) Abandon(*Task) { s.timer.Stop() }

func (s *sleeper) WaitingFor() string { return "its timer" }

// Sleep waits for d, by the loop's clock; if d is 0 or below, for one turn.
func (t *Task) Sleep(d time.Duration) error {
	if d <= 0 || t.own.w.current != t {
		return t.Yield()
	}
	if t.timer == nil {
		t.timer = t.own.w.s.NewTimer(func() { t.Resume(nil) })
	}
	t.timer.Set(d)
	return t.Park((*sleeper)(t))
}

// SleepUntil waits until a time of the loop's clock.
func (t *Task) SleepUntil(at time.Time) error { return t.Sleep(at.Sub(t.own.w.s.Now())) }

// Start starts a task in sc and waits until that task says that it is ready: it calls
// started with what the caller needs to know, for example a listener's address. If it
// ends before that, its error is returned, and is not a failure of sc. If the wait is
// cut short, the new task is canceled and awaited.
func Start[T any](t *Task, sc *Scope, name string, fn func(t *Task, started func(T)) error) (T, error) {
	f, p := future.New[T](sc.w.s)
	// The waiting task gets the value, or the end of the task; a cancel of f does not wake
	// it.
	p.OnCancel(func() {})
	f.Seen()
	var child *Task
	child = sc.Go(name, func(c *Task) error {
		return fn(c, func(v T) {
			child.quiet = false
			p.Resolve(v)
		})
	})
	if child.state == stateEnded {
		var zero T
		return zero, child.err
	}
	child.quiet = true
	child.end = func(err error) {
		if err == nil {
			err = errNotStarted
		}
		p.Reject(err)
	}
	v, err := Await(t, f)
	if err != nil && !f.Settled() {
		child.Cancel()
		_ = t.With(func(*Scope) error { return t.joinQuietly(child) }, Shielded(), Named("start of "+name))
		if v, err, ok := f.Result(); ok && err == nil {
			return v, nil // it was ready nonetheless
		}
	}
	return v, err
}

func (t *Task) joinQuietly(other *Task) error {
	_ = t.Join(other)
	return nil
}
