// Package executor runs functions that block on goroutines of its own, and
// brings their results back to a loop as futures.
//
//	the loop                         │ the executor's goroutines
//	Go(ctx, e, s, fn) ── queue ──────┼─▶ fn(ctx)
//	a future  ◀────────── Post ──────┼─── its result
//
// A loop starts no goroutines of its own accord. A program that needs them, for a
// system call or a library that blocks or for a long computation, makes an Executor,
// with a name and a bound. Goroutines exist only while there is work: an idle Executor
// has none.
package executor

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"runtime/pprof"
	"sync"

	"github.com/weir-io/weir/future"
)

var (
	// ErrFull is in the failure of work that found the queue full, which is a *FullError.
	ErrFull = errors.New("executor: the queue is full")
	// ErrClosed is the failure of work that came after Close, or was queued at that
	// time, and the cause in the context of work that was running.
	ErrClosed = errors.New("executor: closed")
	// ErrLoopClosed is the failure of an inline executor's work whose loop, or tenant, was
	// closed before it began.
	ErrLoopClosed = errors.New("executor: the loop or the tenant was closed before the work began")
)

// FullError is the failure of work that found the queue full; errors.Is finds ErrFull in it.
type FullError struct {
	Executor        string // its name
	Running, Queued int    // its bounds, both reached: see New
}

func (e *FullError) Error() string {
	return fmt.Sprintf("executor %s is full: %d run and %d wait; try again when some are done, or give executor.New more room", e.Executor, e.Running, e.Queued)
}

// Is reports whether target is ErrFull.
func (e *FullError) Is(target error) bool { return target == ErrFull }

// PanicError is the failure of work that panicked.
type PanicError struct {
	Executor string // its name
	Value    any    // what was passed to panic
	Stack    []byte // the stack of the panic
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("executor %s: panic: %v", e.Executor, e.Value)
}

// Unwrap returns the panic's value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Executor runs work on a bounded number of goroutines. Several loops may share
// one; its methods are safe from any goroutine.
type Executor struct {
	name   string
	most   int // goroutines
	room   int // queued
	inline bool

	mu      sync.Mutex
	queue   list.List // of *job, oldest first
	running map[*job]struct{}
	closed  bool
	idle    sync.Cond // running became empty; L is &mu
}

// New makes an Executor that runs at most that many functions at once, and keeps at
// most queue more waiting; both are at least 1. name is for people: goroutine profiles
// show it as the label "executor".
func New(name string, goroutines, queue int) *Executor {
	e := &Executor{name: name, most: max(goroutines, 1), room: max(queue, 1), running: map[*job]struct{}{}}
	e.idle.L = &e.mu
	return e
}

// Inline makes an Executor without goroutines: work runs on the loop's own, in later
// turns, in order. It is for simulated runs, which must be reproducible, and for work
// that turns out not to block. If the loop, or the tenant that the Scheduler is made of, is
// closed before some work has run, that work is dropped, as Do says; its context ends with ErrLoopClosed.
func Inline(name string) *Executor {
	e := New(name, 1, 1<<30)
	e.inline = true
	return e
}

// Name is what New was given.
func (e *Executor) Name() string { return e.name }

// Load is how many functions run and how many wait.
func (e *Executor) Load() (running, queued int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running), e.queue.Len()
}

// job is work that waits or runs.
type job struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	run    func()                        // does the work and tells the loop
	drop   func(error)                   // tells the loop that it will not be done
	post   func(fn, closed func()) error // for an inline executor
	closed func(error)                   // drop where the loop is closed
	must   bool                          // Ensure's: it is not dropped
	at     *list.Element                 // nil unless queued
}

// Go calls fn on one of e's goroutines, with a context that ends when ctx ends, when
// the future is canceled and when e is closed. The future gets what fn returns. Work
// that is canceled before it begins fails at once, with future.ErrCanceled or ctx's
// cause; work that is running settles the future when it returns, so that nothing it
// achieved is lost. A panic becomes a *PanicError, and a call of runtime.Goexit becomes
// future.ErrGoexit. Go belongs to the goroutine of s's loop.
func Go[T any](ctx context.Context, e *Executor, s *future.Scheduler, fn func(ctx context.Context) (T, error)) *future.Future[T] {
	f, p := future.New[T](s)
	if ctx.Err() != nil {
		p.Reject(context.Cause(ctx))
		return f
	}
	j := &job{post: s.PostOr}
	j.ctx, j.cancel = context.WithCancelCause(ctx)
	j.run = func() {
		var v T
		err := future.ErrGoexit
		defer func() {
			if errors.Is(err, context.Canceled) && errors.Is(context.Cause(j.ctx), future.ErrCanceled) {
				err = future.ErrCanceled
			}
			j.cancel(nil)
			// If the loop is closed there is no one to tell.
			_ = p.Post(v, err)
		}()
		err = e.guard(j.ctx, func(ctx context.Context) (err error) {
			v, err = fn(ctx)
			return err
		})
	}
	j.drop = func(err error) {
		j.cancel(err)
		var none T
		_ = p.Post(none, err)
	}
	j.closed = j.cancel // there is no one to tell
	if err := e.add(j); err != nil {
		j.cancel(err)
		p.Reject(err)
		return f
	}
	release := context.AfterFunc(ctx, func() {
		if e.remove(j) {
			j.drop(context.Cause(ctx))
		}
	})
	p.OnCancel(func() {
		if e.remove(j) {
			release()
			j.cancel(future.ErrCanceled)
			p.Reject(future.ErrCanceled)
			return
		}
		j.cancel(future.ErrCanceled)
	})
	f.OnDone(func(T, error) { release() })
	return f
}

// Do is Go without a future, for work that tells of its result itself, for example by
// weir.Loop.PostOr, which reaches a loop that is being closed too. It returns a *FullError
// or ErrClosed if fn will not be called. If e is closed before fn has begun, or the loop or
// tenant of an inline executor is, dropped is called instead: on the goroutine that closes it,
// or in a later turn of the tenant's loop. A panic in fn is not recovered; with an inline
// executor it counts as one of a callback of the loop. Do belongs to the goroutine of s's loop.
func Do(e *Executor, s *future.Scheduler, fn func(), dropped func(error)) error {
	j := &job{post: s.PostOr, drop: dropped, closed: dropped, cancel: func(error) {}}
	j.ctx = context.Background()
	j.run = func() {
		pprof.Do(j.ctx, pprof.Labels("executor", e.name), func(context.Context) { fn() })
	}
	return e.add(j)
}

// Ensure is Do for work that must not be left out, such as closing a file: a full queue
// takes it too, and after Close it runs on a goroutine of its own, for which Wait waits as
// for any other. The caller bounds how much of it there is. An inline executor that is
// closed, or whose loop is, calls fn at once; one whose tenant is, in a later turn.
func Ensure(e *Executor, s *future.Scheduler, fn func()) {
	j := &job{post: s.PostOr, must: true, cancel: func(error) {}}
	j.ctx = context.Background()
	j.closed = func(error) { j.run() }
	j.run = func() {
		pprof.Do(j.ctx, pprof.Labels("executor", e.name), func(context.Context) { fn() })
	}
	if e.add(j) != nil {
		j.run()
	}
}

// guard calls fn under e's name and turns a panic into an error.
func (e *Executor) guard(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Executor: e.name, Value: v, Stack: debug.Stack()}
		}
	}()
	pprof.Do(ctx, pprof.Labels("executor", e.name), func(ctx context.Context) { err = fn(ctx) })
	return err
}

// add queues j and makes sure that a goroutine runs it.
func (e *Executor) add(j *job) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed && (e.inline || !j.must):
		return ErrClosed
	case e.inline:
		closed := func() {
			if e.remove(j) {
				j.closed(ErrLoopClosed)
			}
		}
		if err := j.post(func() { e.runInline(j) }, closed); err != nil {
			return err
		}
		j.at = e.queue.PushBack(j)
	case len(e.running) < e.most, e.closed:
		e.running[j] = struct{}{}
		go e.work(j)
	case e.queue.Len() >= e.room && !j.must:
		return &FullError{Executor: e.name, Running: e.most, Queued: e.room}
	default:
		j.at = e.queue.PushBack(j)
	}
	return nil
}

// remove takes j out of the queue, and reports whether it was there.
func (e *Executor) remove(j *job) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if j.at == nil {
		return false
	}
	e.queue.Remove(j.at)
	j.at = nil
	return true
}

// work runs j, and then what waits, until nothing does.
func (e *Executor) work(j *job) {
	defer func() {
		// The work has called runtime.Goexit: another goroutine goes on.
		if j == nil {
			return
		}
		if j = e.next(j); j != nil {
			go e.work(j)
		}
	}()
	for j != nil {
		j.run()
		j = e.next(j)
	}
}

// begin takes j out of the queue to run it, and reports whether it was there.
func (e *Executor) begin(j *job) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if j.at == nil {
		return false
	}
	e.queue.Remove(j.at)
	j.at = nil
	e.running[j] = struct{}{}
	return true
}

// next ends one job and takes the oldest waiting one, if any.
func (e *Executor) next(done *job) *job {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.running, done)
	front := e.queue.Front()
	if front == nil {
		if len(e.running) == 0 {
			e.idle.Broadcast()
		}
		return nil
	}
	j := e.queue.Remove(front).(*job)
	j.at = nil
	e.running[j] = struct{}{}
	return j
}

// runInline runs a job of an inline executor, on its own loop.
func (e *Executor) runInline(j *job) {
	if !e.begin(j) {
		return // it was canceled
	}
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.running, j)
		if len(e.running) == 0 {
			e.idle.Broadcast()
		}
	}()
	j.run()
}

// Close stops taking work, fails queued work with ErrClosed and ends the contexts of running
// work. It does not wait for that work, nor for what is left to do for Ensure; see Wait.
// Calling it again has no effect.
func (e *Executor) Close() error {
	e.mu.Lock()
	e.closed = true
	var queued []*job
	var next *list.Element
	for at := e.queue.Front(); at != nil; at = next {
		next = at.Next()
		j := at.Value.(*job)
		if j.must && !e.inline {
			continue // those that run take it next
		}
		e.queue.Remove(at)
		j.at = nil
		queued = append(queued, j)
	}
	for j := range e.running {
		j.cancel(ErrClosed)
	}
	e.mu.Unlock()
	for _, j := range queued {
		if j.must {
			j.run()
			continue
		}
		j.drop(ErrClosed)
	}
	return nil
}

// Wait blocks until nothing runs. It must not be called on a loop's goroutine
// that work is waiting for.
func (e *Executor) Wait() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.running) > 0 {
		e.idle.Wait()
	}
}
