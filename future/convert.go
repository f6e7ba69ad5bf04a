package future

import (
	"context"
	"time"
)

// After settles when d has passed. Canceling it stops its timer.
func After(s *Scheduler, d time.Duration) *Future[struct{}] {
	f, p := New[struct{}](s)
	tm := s.newTimer(func() { p.Resolve(struct{}{}) })
	p.OnCancel(func() {
		tm.Stop()
		p.Reject(ErrCanceled)
	})
	tm.Set(d)
	return f
}

// Timeout settles as f does within d; after that f is canceled, and Timeout fails with
// ErrTimeout once f has ended. A value that f has by then, or in the end, is not lost:
// it wins over the timeout (behaviour 79). An f that does not end when it is canceled
// delays the timeout; Shield it if that can happen.
func Timeout[T any](f *Future[T], d time.Duration) *Future[T] {
	g, p := New[T](f.s)
	late := false
	tm := f.s.newTimer(func() { late = f.Cancel() })
	p.OnCancel(func() { f.Cancel() })
	f.OnDone(func(v T, err error) {
		tm.Stop()
		if late && !g.Canceling() && OnlyCanceled(err) {
			err = ErrTimeout
		}
		p.Settle(v, err)
	})
	tm.Set(d)
	return g
}

// FromFunc makes a future of a function that calls back: start gets the callback, which
// must be called on the loop's goroutine and counts once. start returns a function that
// stops the work, or nil. Canceling calls that function; the future then fails with
// ErrCanceled unless the callback was called.
func FromFunc[T any](s *Scheduler, start func(done func(T, error)) (stop func())) *Future[T] {
	f, p := New[T](s)
	stop := start(func(v T, err error) { p.Settle(v, err) })
	p.OnCancel(func() {
		if stop != nil {
			stop()
		}
		p.Reject(ErrCanceled)
	})
	return f
}

// Callback makes a future and the function that settles it, which any goroutine
// may call, and which counts once. After the loop's end it does nothing.
func Callback[T any](s *Scheduler) (*Future[T], func(T, error)) {
	f, p := New[T](s)
	return f, func(v T, err error) { _ = p.Post(v, err) }
}

// FromChan settles with the next value of ch. It uses a goroutine, which waits for the
// value and ends when the future is canceled. If ch is closed, the future fails with
// ErrNothing. A value that is taken from ch just as the future is canceled becomes the
// future's value: it is not lost.
func FromChan[T any](s *Scheduler, ch <-chan T) *Future[T] {
	f, p := New[T](s)
	quit := make(chan struct{})
	p.OnCancel(func() { close(quit) })
	go func() { // not simulated: channels are fed by goroutines
		var v T
		err := ErrCanceled
		select { // not simulated: see above
		case got, ok := <-ch:
			if v, err = got, nil; !ok {
				err = ErrNothing
			}
		case <-quit:
		}
		_ = p.Post(v, err)
	}()
	return f
}

// Chan returns a channel that gets f's result, one value, and is closed then.
// Any goroutine may receive from it.
func Chan[T any](f *Future[T]) <-chan Result[T] {
	ch := make(chan Result[T], 1)
	f.OnDone(func(v T, err error) {
		ch <- Result[T]{v, err}
		close(ch)
	})
	return ch
}

// FromContext fails with ctx's cause when ctx is done. Canceling it stops watching ctx.
func FromContext(s *Scheduler, ctx context.Context) *Future[struct{}] { //nolint:revive // the Scheduler is first everywhere
	f, p := New[struct{}](s)
	release := context.AfterFunc(ctx, func() { _ = p.Post(struct{}{}, context.Cause(ctx)) })
	p.OnCancel(func() {
		release()
		p.Reject(ErrCanceled)
	})
	return f
}

// WithContext cancels f when ctx is done. It returns f.
func WithContext[T any](ctx context.Context, f *Future[T]) *Future[T] {
	release := context.AfterFunc(ctx, func() {
		_ = f.s.post(func() { f.Cancel() })
	})
	f.OnDone(func(T, error) { release() })
	return f
}

// Context returns a context that ends when f settles: with f's failure as its cause, or
// with context.Canceled if f has a value. It also ends when parent does.
func Context[T any](parent context.Context, f *Future[T]) context.Context {
	ctx, cancel := context.WithCancelCause(parent)
	f.OnDone(func(_ T, err error) { cancel(err) })
	return ctx
}

// Carry makes a future on another loop out of f: it settles there as f does here, and
// canceling it there cancels f here. It is called on f's loop; the future it returns
// belongs to the other loop. If that loop is closed when f settles, the result is lost.
func Carry[T any](f *Future[T], to *Scheduler) *Future[T] {
	g, p := New[T](to)
	p.OnCancel(func() {
		if f.s.post(func() { f.Cancel() }) != nil {
			p.Reject(ErrCanceled) // no one is left to settle it
		}
	})
	f.OnDone(func(v T, err error) { _ = p.Post(v, err) })
	return g
}
