package task

import (
	"errors"
	"fmt"
	"iter"
	"runtime/debug"

	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/internal/inner"
)

var (
	// ErrGoexit is the failure of a task that ended its goroutine with runtime.Goexit,
	// as testing's FailNow does. The loop goes on.
	ErrGoexit = errors.New("task: the task called runtime.Goexit")
	// ErrEnded is the failure of a task that was started in a scope that had
	// ended. Its function was not called.
	ErrEnded = errors.New("task: the scope has ended")
	// ErrOutside is returned by a wait that is not called by the task itself.
	ErrOutside = errors.New("task: only the task itself can wait")
)

// PanicError is the failure of a task that panicked.
type PanicError struct {
	Task  string // its name
	Value any    // what was passed to panic
	Stack []byte // the stack of the panic
}

func (e *PanicError) Error() string { return fmt.Sprintf("task: panic in %s: %v", e.Task, e.Value) }

// Unwrap returns the panic's value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Waitable is something that a task can Park at.
type Waitable interface {
	// Abandon is called when the wait of t is cut short: t must not be woken any more.
	Abandon(t *Task)
	// WaitingFor says, in words, what the task waits for.
	WaitingFor() string
}

type state uint8

const (
	stateNew     state = iota
	stateQueued        // will be resumed
	stateRunning       // or has resumed another
	stateWaiting
	stateEnded
	stateStranded // cannot be resumed on this thread
)

// Task is a coroutine. Its waits belong to itself, its other methods to the
// loop's goroutine.
type Task struct {
	own  Scope  // contains what the task starts; Cancel cancels it
	cur  *Scope // the innermost scope that it is in
	fn   func(*Task) error
	co   *coroutine
	err  error // how it ended
	done *future.Promise[struct{}]
	end  func(error)

	state   state
	deaf    bool  // the wait cannot be cut short
	heard   bool  // a wait has returned the cancellation
	bySelf  bool  // it canceled itself
	quiet   bool  // its failure goes to the task that started it: see Start
	waitErr error // what the wait returns
	wait    Waitable
	tag     int // distinguishes this wait from earlier ones

	list       *waitList // the list that it is in, while it waits
	prev, next *Task
	timer      future.Timer
	where      []uintptr // the stack of the wait, if it is kept
}

var (
	_ future.Job    = (*Task)(nil)
	_ future.Waiter = (*Task)(nil)
)

// world is the state that the tasks of one root share.
type world struct {
	s       *future.Scheduler
	root    *Scope
	current *Task
	loop    inner.Loop // nil if it is not a weir.Loop
	trace   bool
	idle    []*coroutine
}

func (w *world) tied() uint64 {
	if w.loop == nil {
		return 0
	}
	return w.loop.Thread()
}

func (w *world) tell() {
	if w.loop == nil {
		return
	}
	name := ""
	if w.current != nil {
		name = w.current.own.name
	}
	w.loop.Switched(name)
}

// idleMax is how many coroutines are kept for the next tasks.
const idleMax = 1024

// coroutine runs tasks, one after another.
type coroutine struct {
	w      *world
	task   *Task
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	thread uint64
	exited bool // by Goexit; it hangs in its last yield
}

func (w *world) coroutine() *coroutine {
	thread := w.tied()
	for n := len(w.idle); n > 0; n = len(w.idle) {
		c := w.idle[n-1]
		w.idle[n-1] = nil
		w.idle = w.idle[:n-1]
		if c.thread == thread {
			return c
		}
	}
	c := &coroutine{w: w, thread: thread}
	c.next, c.stop = iter.Pull(c.run)
	return c
}

// run is the coroutine's function.
func (c *coroutine) run(yield func(struct{}) bool) {
	c.yield = yield
	for {
		c.w.tell()
		c.runTask()
		if !yield(struct{}{}) {
			return
		}
	}
}

func (c *coroutine) runTask() {
	t := c.task
	returned := false
	defer func() {
		if returned {
			return
		}
		// The scopes that the task was in have already cleaned up after themselves.
		if v := recover(); v != nil {
			t.err = &PanicError{Task: t.own.name, Value: v, Stack: debug.Stack()}
			t.err = t.leave(&t.own, t.err)
			return
		}
		// The runtime would pass Goexit on to whatever resumed us, the loop. So this
		// coroutine goes no further.
		t.err = t.leave(&t.own, ErrGoexit)
		c.exited = true
		c.yield(struct{}{})
	}()
	t.err = t.leave(&t.own, t.fn(t))
	returned = true
}

// retire keeps or ends a coroutine whose task has ended.
func (c *coroutine) retire() {
	c.task = nil
	switch {
	case c.exited:
		// The goroutine that stops it exits too: that must not be the loop's. A
		// coroutine that is tied to the loop's thread cannot be stopped from elsewhere,
		// and stays.
		if c.thread == 0 {
			go c.stop() // not simulated: only a task that calls Goexit comes here
		}
	case len(c.w.idle) < idleMax:
		c.w.idle = append(c.w.idle, c)
	default:
		c.stop()
	}
}

// stopIdle ends the coroutines that wait for tasks.
func (w *world) stopIdle() {
	thread := w.tied()
	for _, c := range w.idle {
		if c.thread == thread {
			c.stop()
		}
	}
	w.idle = nil
}

// Run resumes the task, if it is due; the Scheduler calls it.
func (t *Task) Run() {
	if t.state == stateQueued {
		t.resume()
	}
}

// resume switches to the task until it waits or ends.
func (t *Task) resume() {
	w := t.own.w
	c := t.co
	if c == nil {
		c = w.coroutine()
		c.task, t.co = t, c
	} else if c.thread != w.tied() {
		t.state = stateStranded
		return
	}
	outer := w.current
	w.current, t.state = t, stateRunning
	_, alive := c.next()
	w.current = outer
	w.tell()
	if t.state == stateRunning { // it has not reached a wait
		t.co = nil
		if alive {
			c.retire()
		}
		t.finish()
	}
}

// finish is called when the function has returned.
func (t *Task) finish() {
	t.state = stateEnded
	t.fn, t.timer, t.cur, t.where = nil, nil, nil, nil
	parent := t.own.parent
	parent.unlink(&t.own)
	if t.end != nil {
		t.end(t.err)
		t.end = nil
	}
	if t.done != nil {
		t.done.Settle(struct{}{}, t.err)
	}
	parent.childEnded(t)
}

// Name is the name that Go was given.
func (t *Task) Name() string { return t.own.name }

// Scheduler is the loop that the task runs on.
func (t *Task) Scheduler() *future.Scheduler { return t.own.w.s }

// Scope is the innermost scope that the task is in.
func (t *Task) Scope() *Scope {
	if t.cur == nil {
		return &t.own
	}
	return t.cur
}

// Go starts a task in the innermost scope that t is in: see Scope.Go.
func (t *Task) Go(name string, fn func(*Task) error) *Task { return t.Scope().Go(name, fn) }

// Cancel cancels the task and what it has started: every wait returns
// future.ErrCanceled from now on. This is not a failure for the task's scope. A task
// that swallows its cancellation keeps its result; one that cancels itself and returns
// without another wait still counts as canceled (behaviour 78).
func (t *Task) Cancel() {
	if t.own.w.current == t {
		t.bySelf = true
	}
	t.own.Cancel(nil)
}

// Ended reports whether the task has ended, and how.
func (t *Task) Ended() (bool, error) {
	if t.state != stateEnded {
		return false, nil
	}
	return true, t.err
}

// Done settles when the task has ended, with its error. Its scope takes care of
// failures whether or not anyone asks for Done. Canceling it cancels the task.
func (t *Task) Done() *future.Future[struct{}] {
	if t.done == nil {
		f, p := future.New[struct{}](t.own.w.s)
		f.Seen()
		t.done = &p
		if t.state == stateEnded {
			p.Settle(struct{}{}, t.err)
		} else {
			p.OnCancel(t.Cancel)
		}
	}
	return t.done.Future()
}

// Park waits until Wake or Resume is called on t, and returns the error that it was
// given. The waits of this package are built on it: first arrange for the wake-up, then
// Park. If the scope is canceled, before or meanwhile, w's Abandon is called and Park
// returns future.ErrCanceled, after a turn.
func (t *Task) Park(w Waitable) error {
	if t.own.w.current != t {
		w.Abandon(t)
		return ErrOutside
	}
	if t.cur.Canceled() {
		w.Abandon(t)
		t.turn()
		return t.cancellation()
	}
	// This is hold written out: see there.
	t.wait, t.state = w, stateWaiting
	if t.own.w.trace {
		t.mark()
	}
	t.co.yield(struct{}{})
	t.own.w.tell()
	t.wait = nil
	t.tag++
	err := t.waitErr
	if err == nil {
		return nil
	}
	t.waitErr = nil
	if err == future.ErrCanceled { //nolint:errorlint // put there by interrupt
		t.heard = true
	}
	return err
}

// hold suspends the task until it is woken: it switches back to whatever resumed the task.
//
// A processor predicts where a function returns to from where it was last called, which
// is wrong for each function that was left by a switch. So the fewer calls there are
// around the switch the better, and Park and Yield make the switch themselves.
func (t *Task) hold(w Waitable) {
	t.wait, t.state = w, stateWaiting
	if t.own.w.trace {
		t.mark()
	}
	t.co.yield(struct{}{})
	t.own.w.tell()
	t.wait = nil
	t.tag++
}

func (t *Task) cancellation() error {
	t.heard = true
	return future.ErrCanceled
}

// turn lets one turn of the loop pass.
func (t *Task) turn() {
	t.state = stateQueued
	t.own.w.s.Enqueue(t)
	t.co.yield(struct{}{})
	t.own.w.tell()
}

// Wake ends t's Park, which returns err, in the next turn. It reports false, and does
// nothing, if t is not waiting or has been woken or canceled already.
func (t *Task) Wake(err error) bool {
	if t.state != stateWaiting {
		return false
	}
	t.state, t.waitErr = stateQueued, err
	t.own.w.s.Enqueue(t)
	return true
}

// Resume is Wake at once: t runs until its next wait before Resume returns. It is for
// callbacks of the loop, which leave nothing half done.
func (t *Task) Resume(err error) bool {
	if t.state != stateWaiting {
		return false
	}
	t.state, t.waitErr = stateQueued, err
	t.resume()
	return true
}

// Waiting reports whether Wake or Resume would have an effect: t is parked, and nothing
// has ended its wait.
func (t *Task) Waiting() bool { return t.state == stateWaiting }

// interrupt cuts the task's wait short.
func (t *Task) interrupt() {
	if t.state != stateWaiting || t.deaf {
		return
	}
	t.wait.Abandon(t)
	t.Wake(future.ErrCanceled)
}

// FutureSettled resumes the task, if it still waits for that future.
func (t *Task) FutureSettled(tag int) {
	if tag == t.tag {
		t.Resume(nil)
	}
}
