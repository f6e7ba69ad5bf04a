package task

import (
	"errors"
	"fmt"
	"time"

	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/internal/inner"
)

// Scope is what tasks live in. Scopes form a tree: a scope contains the tasks that were
// started in it, and the scopes that its body made. Its methods belong to the loop's
// goroutine.
type Scope struct {
	w      *world
	name   string
	parent *Scope
	task   *Task // the task whose body made it; nil for a root

	first, last *Scope // scopes inside it, in the order of creation
	prev, next  *Scope // its neighbors
	isTask      bool   // it is task's own scope
	ended       bool
	canceled    bool
	timedOut    bool // canceled by its deadline
	shielded    bool
	cut         bool // its cancellation cut a task in it short
	live        int  // tasks in it
	cause       error
	errs        []error
	failed      func(*Task, error) // gets the failures instead
	idle        *future.Promise[struct{}]
	deadline    time.Time
	timer       future.Timer
}

// Option is an option of New, With and Nursery.
type Option func(*Scope)

// Named gives a scope its name in the tree.
func Named(name string) Option { return func(sc *Scope) { sc.name = name } }

// Within gives a scope a deadline: see SetTimeout.
func Within(d time.Duration) Option { return func(sc *Scope) { sc.SetTimeout(d) } }

// Until gives a scope a deadline: see SetDeadline.
func Until(at time.Time) Option { return func(sc *Scope) { sc.SetDeadline(at) } }

// Shielded shields a scope from the cancellation of those around it: see SetShield.
func Shielded() Option { return func(sc *Scope) { sc.shielded = true } }

// Independent makes the tasks of a scope independent of each other, like the
// connections of a server: if one fails, failed is called, and the failure neither
// cancels the others nor becomes part of the scope's error.
func Independent(failed func(t *Task, err error)) Option {
	return func(sc *Scope) { sc.failed = failed }
}

// Traced records the stack of every wait below a root, so that the tree says at which
// line each task waits. It costs about a microsecond per wait.
func Traced() Option { return func(sc *Scope) { sc.w.trace = true } }

// New makes a root: a scope with nothing around it. Close it when it is no longer
// needed, or Cancel it and wait for Done.
func New(s *future.Scheduler, opts ...Option) *Scope {
	w := &world{s: s, loop: inner.Of(s.Loop())}
	sc := &Scope{w: w, name: "root"}
	w.root = sc
	for _, o := range opts {
		o(sc)
	}
	return sc
}

// Go starts a task, which first runs in the next turn. An error that its function
// returns is a failure, unless it is nothing but a cancellation, and cancels the scope,
// as the cause. If the scope has ended, the task fails with ErrEnded.
func (sc *Scope) Go(name string, fn func(*Task) error) *Task {
	t := &Task{fn: fn, own: Scope{w: sc.w, name: name, parent: sc, isTask: true}}
	t.own.task = t
	if sc.ended {
		t.state, t.err = stateEnded, fmt.Errorf("%w: %s in %s", ErrEnded, name, sc.name)
		_, p := future.New[struct{}](sc.w.s)
		p.Reject(t.err) // reported unless someone asks for Done
		t.done = &p
		return t
	}
	t.cur = &t.own
	sc.link(&t.own)
	sc.live++
	t.state = stateQueued
	sc.w.s.Enqueue(t)
	return t
}

// Post is Go from any goroutine. It returns the loop's error if the loop is
// closed.
func (sc *Scope) Post(name string, fn func(*Task) error) error {
	return sc.w.s.Post(func() { sc.Go(name, fn) })
}

// Go starts a task that makes a value. The future gets the value, or the failure, which
// the scope handles as well; canceling the future cancels the task.
func Go[T any](sc *Scope, name string, fn func(*Task) (T, error)) *future.Future[T] {
	f, p := future.New[T](sc.w.s)
	f.Seen()
	var v T
	t := sc.Go(name, func(t *Task) (err error) {
		v, err = fn(t)
		return err
	})
	if t.state == stateEnded {
		t.Done().Seen()
		p.Reject(t.err)
		return f
	}
	t.end = func(err error) { p.Settle(v, err) }
	p.OnCancel(t.Cancel)
	return f
}

// With runs fn in a scope of its own, inside the task t, and returns when fn
// and every task in the scope have ended. fn's error cancels the scope as a
// task's does. With returns
//
//   - what failed, joined if several did, fn's own failure first;
//   - else future.ErrCanceled if a cancellation from outside the scope cut something
//     short (an inner scope never swallows an outer cancellation);
//   - else future.ErrTimeout if the scope's own deadline did;
//   - else future.ErrCanceled if fn itself returned that, else nil.
//
// So a deadline that passes at the same time does not turn completed work into a
// failure (behaviour 79).
func (t *Task) With(fn func(sc *Scope) error, opts ...Option) error {
	if t.own.w.current != t {
		return ErrOutside
	}
	sc := &Scope{w: t.own.w, name: "scope", parent: t.cur, task: t}
	t.cur.link(sc)
	t.cur = sc
	for _, o := range opts {
		o(sc)
	}
	returned := false
	defer func() {
		if !returned { // a panic or Goexit, which continues once the tasks are gone
			sc.Cancel(nil)
			_ = t.leave(sc, nil)
			t.dropScope(sc)
		}
	}()
	err := fn(sc)
	returned = true
	err = t.leave(sc, err)
	t.dropScope(sc)
	return err
}

func (t *Task) dropScope(sc *Scope) {
	t.cur = sc.parent
	sc.parent.unlink(sc)
}

// leave ends a scope whose body has returned err: it waits for the tasks in it, and
// returns the outcome of all of them.
func (t *Task) leave(sc *Scope, err error) error {
	canceled := future.OnlyCanceled(err)
	if err != nil {
		if !canceled {
			sc.errs = append([]error{err}, sc.errs...)
		}
		sc.Cancel(err)
	}
	for sc.live > 0 {
		t.cur = sc
		t.deaf = true
		t.hold((*tasksOf)(sc))
		t.deaf = false
		t.waitErr = nil
	}
	sc.ended = true
	if sc.timer != nil {
		sc.timer.Stop()
	}
	switch {
	case len(sc.errs) == 1:
		return sc.errs[0]
	case len(sc.errs) > 1:
		return errors.Join(sc.errs...)
	case !canceled && !sc.cut:
		if sc.isTask && t.bySelf && !t.heard {
			return future.ErrCanceled
		}
		return nil
	case !sc.shielded && sc.parent != nil && sc.parent.Canceled():
		return future.ErrCanceled
	case sc.timedOut:
		return future.ErrTimeout
	case canceled:
		return err
	}
	return nil
}

// tasksOf is the Waitable of a body that waits for the tasks at the end of its scope.
type tasksOf Scope

var _ Waitable = (*tasksOf)(nil)

// Abandon implements Waitable; the wait is never cut short.
func (sc *tasksOf) Abandon(*Task) {}

func (sc *tasksOf) WaitingFor() string { return "tasks of " + sc.name }

func (sc *Scope) link(c *Scope) {
	c.prev = sc.last
	if sc.last != nil {
		sc.last.next = c
	} else {
		sc.first = c
	}
	sc.last = c
}

func (sc *Scope) unlink(c *Scope) {
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		sc.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		sc.last = c.prev
	}
	c.prev, c.next = nil, nil
}

// childEnded records the end of t.
func (sc *Scope) childEnded(t *Task) {
	sc.live--
	switch err := t.err; {
	case err == nil:
	case future.OnlyCanceled(err):
		if sc.Canceled() {
			sc.cut = true
		}
	case t.quiet:
	case sc.failed != nil:
		sc.failed(t, err)
	default:
		sc.errs = append(sc.errs, err)
		sc.Cancel(err)
	}
	if sc.live > 0 {
		return
	}
	if sc.task != nil {
		if sc.task.state == stateWaiting && sc.task.wait == Waitable((*tasksOf)(sc)) {
			sc.task.Wake(nil)
		}
		if sc.idle == nil {
			return
		}
	}
	sc.settleIdle()
}

// settleIdle settles Done, if anyone asked for it.
func (sc *Scope) settleIdle() {
	if sc.task == nil && (sc.canceled || sc.idle != nil) {
		sc.w.stopIdle()
	}
	if p := sc.idle; p != nil {
		sc.idle = nil
		p.Settle(struct{}{}, sc.takeErrs())
	}
}

// takeErrs takes the failures so far.
func (sc *Scope) takeErrs() error {
	if len(sc.errs) == 1 {
		return sc.errs[0]
	}
	return errors.Join(sc.errs...)
}

// Cancel cancels the scope and everything inside it that is not shielded: every wait
// there returns future.ErrCanceled from now on. cause is for Cause and may be nil.
// Calling it again has no effect.
func (sc *Scope) Cancel(cause error) {
	if sc.canceled {
		return
	}
	sc.canceled = true
	if sc.cause = cause; cause == nil {
		sc.cause = future.ErrCanceled
	}
	if sc.timer != nil {
		sc.timer.Stop()
	}
	sc.deliver()
	if sc.task == nil && sc.live == 0 {
		sc.w.stopIdle()
	}
}

// deliver cuts short the waits in the scope.
func (sc *Scope) deliver() {
	if sc.task != nil && sc.task.cur == sc {
		sc.task.interrupt()
	}
	for c := sc.first; c != nil; {
		next := c.next
		if !c.shielded {
			c.deliver()
		}
		c = next
	}
}

// Canceled reports whether waits in the scope return the cancellation: it, or a scope
// around it from which it is not shielded, was canceled.
func (sc *Scope) Canceled() bool {
	for ; sc != nil; sc = sc.parent {
		if sc.canceled {
			return true
		}
		if sc.shielded {
			return false
		}
	}
	return false
}

// Cause is why the scope is canceled: the failure of a task, future.ErrTimeout, or the
// error that Cancel was given; nil if it is not canceled.
func (sc *Scope) Cause() error {
	for ; sc != nil; sc = sc.parent {
		if sc.canceled {
			return sc.cause
		}
		if sc.shielded {
			return nil
		}
	}
	return nil
}

// SetShield sets whether the scope is shielded from the cancellation of those around
// it. When the shield is removed, a cancellation that came meanwhile is delivered.
func (sc *Scope) SetShield(on bool) {
	sc.shielded = on
	if !on && sc.Canceled() {
		sc.deliver()
	}
}

// SetTimeout moves the scope's deadline to d from now.
func (sc *Scope) SetTimeout(d time.Duration) { sc.SetDeadline(sc.w.s.Now().Add(d)) }

// SetDeadline moves the scope's deadline: at that time it is canceled, with
// future.ErrTimeout as the cause. The zero time means no deadline. In a scope that is
// canceled it does nothing.
func (sc *Scope) SetDeadline(at time.Time) {
	if sc.canceled || sc.ended {
		return
	}
	sc.deadline = at
	switch {
	case !at.IsZero():
		if sc.timer == nil {
			sc.timer = sc.w.s.NewTimer(sc.late)
		}
		sc.timer.Set(at.Sub(sc.w.s.Now()))
	case sc.timer != nil:
		sc.timer.Stop()
	}
}

func (sc *Scope) late() {
	if !sc.canceled && !sc.ended {
		sc.timedOut = true
		sc.Cancel(future.ErrTimeout)
	}
}

// Deadline is the scope's own deadline; zero if there is none.
func (sc *Scope) Deadline() time.Time { return sc.deadline }

// Name is the name that Named gave it; a task's own scope has the task's name.
func (sc *Scope) Name() string { return sc.name }

// Scheduler is the loop that the scope's tasks run on.
func (sc *Scope) Scheduler() *future.Scheduler { return sc.w.s }

// Tasks is the number of tasks directly in the scope.
func (sc *Scope) Tasks() int { return sc.live }

// Done settles when no task is in the scope: now, or when the last one has ended. It
// fails with the failures, joined.
func (sc *Scope) Done() *future.Future[struct{}] {
	if sc.idle != nil {
		return sc.idle.Future()
	}
	f, p := future.New[struct{}](sc.w.s)
	sc.idle = &p
	p.OnCancel(func() {})
	if sc.live == 0 {
		sc.settleIdle()
	}
	return f
}

// LeftError names what Close could not end.
type LeftError struct {
	Tasks int
	Tree  string // where each task is: see Scope.String
}

func (e *LeftError) Error() string {
	return fmt.Sprintf("task: %d tasks did not end:\n%s", e.Tasks, e.Tree)
}

// Close cancels a root and runs its tasks to their end, whether or not its loop still
// turns, then ends it. It returns the failures, joined, with a *LeftError if a task
// could not be ended: one that waits again after each cancellation, or that cannot be
// resumed on this thread. It must not be called from a callback or a task.
func (sc *Scope) Close() error {
	sc.Cancel(nil)
	err := sc.w.s.Flush()
	sc.ended = true
	if sc.live > 0 {
		err = errors.Join(err, &LeftError{Tasks: sc.live, Tree: sc.String()})
	}
	sc.w.stopIdle()
	return errors.Join(sc.takeErrs(), err)
}
