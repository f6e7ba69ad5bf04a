package future

import (
	"context"
	"errors"

	"github.com/weir-io/weir/internal/timeout"
)

// canceledError is ErrCanceled's type.
type canceledError struct{}

func (canceledError) Error() string        { return "future: canceled" }
func (canceledError) Is(target error) bool { return target == context.Canceled }

var (
	// ErrCanceled is the failure of a canceled future, and the error that a wait in a
	// canceled scope returns. It is context.Canceled too.
	ErrCanceled error = canceledError{}
	// ErrTimeout is the failure of something that took too long. It is
	// os.ErrDeadlineExceeded and context.DeadlineExceeded too.
	ErrTimeout error = timeout.New("future: timed out")

	errNilReject = errors.New("future: rejected with a nil error")
)

// Waiter is told of a settled future without a closure for each: see Watch.
type Waiter interface {
	// FutureSettled is called from the loop's queue with the tag that Watch was
	// given.
	FutureSettled(tag int)
}

// Future is a value of type T that is not there yet, or a failure.
type Future[T any] struct {
	s        *Scheduler
	value    T
	err      error
	first    entry[T]   // those to be notified: this one comes first,
	more     []entry[T] // and is nearly always the only one
	onCancel func()
	unseen   *unseen
	flags    flags
}

type flags uint8

const (
	fSettled  flags = 1 << iota
	fQueued         // in the Scheduler's queue
	fSeen           // someone looked, or asked to be told
	fCanceled       // Cancel was called
)

// entry is one party to notify: a function, or a Waiter with its tag.
type entry[T any] struct {
	fn  func(T, error)
	w   Waiter
	tag int
}

func (e *entry[T]) empty() bool { return e.fn == nil && e.w == nil }

// Promise is the settling side of a Future. Its methods, except Post, belong to the
// loop's goroutine.
type Promise[T any] struct{ f *Future[T] }

// New makes an open future and its settling side.
func New[T any](s *Scheduler) (*Future[T], Promise[T]) {
	f := &Future[T]{s: s}
	return f, Promise[T]{f}
}

// Resolved makes a future that has a value already.
func Resolved[T any](s *Scheduler, v T) *Future[T] {
	return &Future[T]{s: s, value: v, flags: fSettled}
}

// Rejected makes a future that has failed already.
func Rejected[T any](s *Scheduler, err error) *Future[T] {
	f, p := New[T](s)
	p.Reject(err)
	return f
}

// Resolve settles with a value. It reports false if the future has settled
// before, and does nothing then.
func (p Promise[T]) Resolve(v T) bool { return p.f.settle(v, nil) }

// Reject settles with a failure; see Resolve. A nil error is replaced by one
// that says so.
func (p Promise[T]) Reject(err error) bool {
	if err == nil {
		err = errNilReject
	}
	var zero T
	return p.f.settle(zero, err)
}

// Settle is Resolve if err is nil, else Reject; the value is kept alongside the
// failure, as io.Reader returns n alongside an error.
func (p Promise[T]) Settle(v T, err error) bool { return p.f.settle(v, err) }

// Post is Settle from any goroutine; it returns the loop's error if the loop is
// closed.
func (p Promise[T]) Post(v T, err error) error {
	return p.f.s.post(func() { p.f.settle(v, err) })
}

// OnCancel arranges for Cancel to call fn, once, instead of settling the future with
// ErrCanceled: fn makes whoever works for this future stop, and settle it when that is
// done. If Cancel was called before, fn is called at once.
func (p Promise[T]) OnCancel(fn func()) {
	switch {
	case p.f.Settled():
	case p.f.flags&fCanceled != 0:
		p.f.callCancel(fn)
	default:
		p.f.onCancel = fn
	}
}

// Future is the other side of the promise.
func (p Promise[T]) Future() *Future[T] { return p.f }

// Scheduler is what f was made with.
func (f *Future[T]) Scheduler() *Scheduler { return f.s }

// Settled reports whether f has a value or has failed.
func (f *Future[T]) Settled() bool { return f.flags&fSettled != 0 }

// Result returns value and failure; ok is false while there is neither. It
// counts as looking at the failure.
func (f *Future[T]) Result() (v T, err error, ok bool) {
	if !f.Settled() {
		return v, nil, false
	}
	f.look()
	return f.value, f.err, true
}

// OnDone arranges for fn to be called with value and failure, in the turn after f has
// settled, or in the next turn if it has already settled (behaviour 76). Functions and
// Waiters are called in the order in which they came.
func (f *Future[T]) OnDone(fn func(T, error)) { f.add(entry[T]{fn: fn}) }

// Watch is OnDone for a Waiter: w is called with the tag and asks for the Result.
func (f *Future[T]) Watch(w Waiter, tag int) { f.add(entry[T]{w: w, tag: tag}) }

// Unwatch takes back a Watch of w and tag. It returns how many others wait for f and
// whether it found one to take back.
func (f *Future[T]) Unwatch(w Waiter, tag int) (others int, found bool) {
	if f.first.w == w && f.first.tag == tag {
		f.pop()
		found = true
	} else {
		for i := range f.more {
			if e := &f.more[i]; e.w == w && e.tag == tag {
				copy(f.more[i:], f.more[i+1:])
				f.more[len(f.more)-1] = entry[T]{}
				f.more = f.more[:len(f.more)-1]
				found = true
				break
			}
		}
	}
	return f.waiting(), found
}

// Seen says that someone knows of f's failure by other means: it is not reported.
func (f *Future[T]) Seen() { f.look() }

// Cancel asks whoever works for f to stop. If OnCancel was not called, f fails with
// ErrCanceled at once; otherwise it settles when and how the worker sees fit: a result
// that was on its way is not lost. It reports whether f was open. Calling it again has
// no effect.
func (f *Future[T]) Cancel() bool {
	if f.Settled() {
		return false
	}
	if f.flags&fCanceled != 0 {
		return true
	}
	f.flags |= fCanceled
	if fn := f.onCancel; fn != nil {
		f.onCancel = nil
		f.callCancel(fn)
		return true
	}
	var zero T
	f.settle(zero, ErrCanceled)
	return true
}

// callCancel calls the function that OnCancel was given. If that panics, no one is left
// to settle f.
func (f *Future[T]) callCancel(fn func()) {
	safely("OnCancel", func() error {
		fn()
		return nil
	}, func(err error) {
		var zero T
		if f.settle(zero, err) {
			return
		}
		if p := (*PanicError)(nil); errors.As(err, &p) {
			panic(p.Value) // f has settled: let the caller of Cancel know
		}
	})
}

// Canceling reports whether Cancel was called before f settled.
func (f *Future[T]) Canceling() bool { return f.flags&fCanceled != 0 }

func (f *Future[T]) add(e entry[T]) {
	f.look()
	if f.first.empty() {
		f.first = e
	} else {
		f.more = append(f.more, e)
	}
	if f.Settled() {
		f.enqueue()
	}
}

func (f *Future[T]) waiting() int {
	if f.first.empty() {
		return 0
	}
	return 1 + len(f.more)
}

// pop takes the first entry.
func (f *Future[T]) pop() entry[T] {
	e := f.first
	f.first = entry[T]{}
	if len(f.more) > 0 {
		f.first, f.more[0] = f.more[0], entry[T]{}
		if f.more = f.more[1:]; len(f.more) == 0 {
			f.more = nil
		}
	}
	return e
}

func (f *Future[T]) settle(v T, err error) bool {
	if f.Settled() {
		return false
	}
	f.flags |= fSettled
	f.value, f.err = v, err
	f.onCancel = nil
	switch {
	case f.waiting() > 0:
		f.enqueue()
	case err != nil && f.flags&fSeen == 0 && !OnlyCanceled(err):
		f.watchUnseen()
	}
	return true
}

func (f *Future[T]) enqueue() {
	if f.flags&fQueued == 0 {
		f.flags |= fQueued
		f.s.Enqueue(f)
	}
}

// Run implements Job: it notifies those that wait.
func (f *Future[T]) Run() {
	f.flags &^= fQueued
	defer func() {
		if f.waiting() > 0 { // added meanwhile, or left by a panic
			f.enqueue()
		}
	}()
	for n := f.waiting(); n > 0 && f.waiting() > 0; n-- {
		e := f.pop()
		if e.w != nil {
			e.w.FutureSettled(e.tag)
		} else {
			e.fn(f.value, f.err)
		}
	}
}

// OnlyCanceled reports whether err is nothing but cancellation: ErrCanceled, wrapped or
// not, or a join of nothing but cancellations. An error that joins a cancellation and a
// failure is a failure.
func OnlyCanceled(err error) bool {
	for err != nil {
		if err == ErrCanceled || err == context.Canceled { //nolint:errorlint // this is the unwrapping
			return true
		}
		switch e := err.(type) { //nolint:errorlint // this is the unwrapping
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			all := e.Unwrap()
			for _, one := range all {
				if !OnlyCanceled(one) {
					return false
				}
			}
			return len(all) > 0
		default:
			return false
		}
	}
	return false
}
