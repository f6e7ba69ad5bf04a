package future

import (
	"errors"
	"slices"
)

// Result is how a future ended.
type Result[T any] struct {
	Value T
	Err   error
}

// Pair is two values.
type Pair[A, B any] struct {
	A A
	B B
}

var (
	_ Waiter = (*gather[int])(nil)
	_ Waiter = (*gatherAll[int])(nil)
	_ Waiter = (*race[int])(nil)
	_ Waiter = (*asCompleted[int])(nil)
)

// gather waits for many.
type gather[T any] struct {
	fs     []*Future[T]
	out    []T
	p      Promise[[]T]
	left   int
	strict bool
}

// Gather waits for all of fs and yields their values in the order of fs. It fails with
// the first failure, at once; the others go on, and their failures count as seen.
// Canceling it cancels all of fs (behaviour 77).
func Gather[T any](s *Scheduler, fs ...*Future[T]) *Future[[]T] { return newGather(s, fs, false) }

// GatherStrict is Gather, except that a failure cancels the others.
func GatherStrict[T any](s *Scheduler, fs ...*Future[T]) *Future[[]T] {
	return newGather(s, fs, true)
}

func newGather[T any](s *Scheduler, fs []*Future[T], strict bool) *Future[[]T] {
	f, p := New[[]T](s)
	g := &gather[T]{fs: slices.Clone(fs), out: make([]T, len(fs)), p: p, left: len(fs), strict: strict}
	if g.left == 0 {
		p.Resolve(g.out)
		return f
	}
	p.OnCancel(func() { cancelAll(g.fs) })
	for i, one := range g.fs {
		one.Watch(g, i)
	}
	return f
}

func (g *gather[T]) FutureSettled(i int) {
	v, err, _ := g.fs[i].Result()
	g.out[i] = v
	g.left--
	switch {
	case err != nil:
		if g.p.Reject(err) && g.strict {
			cancelAll(g.fs)
		}
	case g.left == 0:
		g.p.Resolve(g.out)
	}
}

func cancelAll[T any](fs []*Future[T]) {
	for _, f := range fs {
		f.Cancel()
	}
}

// gatherAll waits for many, however they end.
type gatherAll[T any] struct {
	fs   []*Future[T]
	out  []Result[T]
	p    Promise[[]Result[T]]
	left int
}

// GatherAll waits until all of fs have ended, in whatever way, and yields the Result of
// each, in the order of fs. It never fails; canceling it cancels all of fs.
func GatherAll[T any](s *Scheduler, fs ...*Future[T]) *Future[[]Result[T]] {
	f, p := New[[]Result[T]](s)
	g := &gatherAll[T]{fs: slices.Clone(fs), out: make([]Result[T], len(fs)), p: p, left: len(fs)}
	if g.left == 0 {
		p.Resolve(g.out)
		return f
	}
	p.OnCancel(func() { cancelAll(g.fs) })
	for i, one := range g.fs {
		one.Watch(g, i)
	}
	return f
}

func (g *gatherAll[T]) FutureSettled(i int) {
	v, err, _ := g.fs[i].Result()
	g.out[i] = Result[T]{v, err}
	if g.left--; g.left == 0 {
		g.p.Resolve(g.out)
	}
}

// race waits for one of many.
type race[T any] struct {
	fs      []*Future[T]
	errs    []error // of those that failed, if a success is wanted
	p       Promise[T]
	left    int
	success bool
}

// ErrNothing is the failure of a Race among no futures.
var ErrNothing = errors.New("future: nothing to wait for")

// Race settles as the first of fs to settle does, with its value or its failure; the
// others are canceled. To let one go on, Shield it. If several have settled before Race
// could look, the one that settled first counts. Canceling it cancels all. A Race among
// no futures fails with ErrNothing.
func Race[T any](s *Scheduler, fs ...*Future[T]) *Future[T] { return newRace(s, fs, false) }

// FirstSuccess settles with the value of the first of fs to have one; the others are
// then canceled. If all fail it fails with all their failures joined, in the order of
// fs. Canceling it cancels all.
func FirstSuccess[T any](s *Scheduler, fs ...*Future[T]) *Future[T] { return newRace(s, fs, true) }

func newRace[T any](s *Scheduler, fs []*Future[T], success bool) *Future[T] {
	f, p := New[T](s)
	if len(fs) == 0 {
		p.Reject(ErrNothing)
		return f
	}
	r := &race[T]{fs: slices.Clone(fs), p: p, left: len(fs), success: success}
	if success {
		r.errs = make([]error, len(fs))
	}
	p.OnCancel(func() { cancelAll(r.fs) })
	for i, one := range r.fs {
		one.Watch(r, i)
	}
	return f
}

func (r *race[T]) FutureSettled(i int) {
	v, err, _ := r.fs[i].Result()
	r.left--
	if err != nil && r.success {
		r.errs[i] = err
		if r.left == 0 {
			r.p.Reject(errors.Join(r.errs...))
		}
		return
	}
	if r.p.Settle(v, err) {
		for j, f := range r.fs {
			if j != i {
				f.Cancel()
			}
		}
	}
}

// Completed is one of several futures, and how it ended.
type Completed[T any] struct {
	Index int // its index in AsCompleted's arguments
	Value T
	Err   error
}

type asCompleted[T any] struct {
	fs  []*Future[T]
	out []Promise[Completed[T]]
	n   int
}

// AsCompleted returns as many futures as it is given: the first yields the one that
// settles first, and so on. None of them fails. Canceling one changes nothing for the
// others: it only gives up its place in the sequence.
func AsCompleted[T any](s *Scheduler, fs ...*Future[T]) []*Future[Completed[T]] {
	a := &asCompleted[T]{fs: slices.Clone(fs), out: make([]Promise[Completed[T]], len(fs))}
	row := make([]*Future[Completed[T]], len(fs))
	for i := range fs {
		row[i], a.out[i] = New[Completed[T]](s)
	}
	for i, f := range a.fs {
		f.Watch(a, i)
	}
	return row
}

func (a *asCompleted[T]) FutureSettled(i int) {
	v, err, _ := a.fs[i].Result()
	for a.n < len(a.out) {
		a.n++
		if a.out[a.n-1].Resolve(Completed[T]{i, v, err}) {
			return
		}
	}
}

// Both waits for two futures of different types. It fails with the first failure, at
// once. Canceling it cancels both.
func Both[A, B any](s *Scheduler, a *Future[A], b *Future[B]) *Future[Pair[A, B]] {
	f, p := New[Pair[A, B]](s)
	p.OnCancel(func() {
		a.Cancel()
		b.Cancel()
	})
	done := func(err error) {
		if err != nil {
			p.Reject(err)
		} else if a.Settled() && b.Settled() && a.err == nil && b.err == nil {
			p.Resolve(Pair[A, B]{a.value, b.value})
		}
	}
	a.OnDone(func(_ A, err error) { done(err) })
	b.OnDone(func(_ B, err error) { done(err) })
	return f
}

// Map settles with f's value put through fn, which runs on the loop. If f or fn fails,
// it fails likewise; if fn panics, with a *PanicError. Canceling it cancels f.
func Map[T, U any](f *Future[T], fn func(T) (U, error)) *Future[U] {
	g, p := New[U](f.s)
	p.OnCancel(func() { f.Cancel() })
	f.OnDone(func(v T, err error) {
		if err != nil {
			p.Reject(err)
			return
		}
		safely("Map", func() error {
			p.Settle(fn(v))
			return nil
		}, func(err error) { p.Reject(err) })
	})
	return g
}

// Then starts the next step when f has a value: it settles as the future that fn
// returns does. If f fails, it fails likewise; if fn panics, with a *PanicError. An fn
// that returns nil counts as a failure. Canceling it cancels the step that is under
// way.
func Then[T, U any](f *Future[T], fn func(T) *Future[U]) *Future[U] {
	g, p := New[U](f.s)
	cancel := func() { f.Cancel() }
	p.OnCancel(func() { cancel() })
	f.OnDone(func(v T, err error) {
		if err != nil {
			p.Reject(err)
			return
		}
		var next *Future[U]
		safely("Then", func() error {
			if next = fn(v); next == nil {
				return errNilFuture
			}
			return nil
		}, func(err error) { p.Reject(err) })
		if next == nil {
			return
		}
		cancel = func() { next.Cancel() }
		if g.Canceling() {
			next.Cancel()
		}
		next.OnDone(func(v U, err error) { p.Settle(v, err) })
	})
	return g
}

// Shield settles as f does, but canceling it leaves f alone.
func Shield[T any](f *Future[T]) *Future[T] {
	g, p := New[T](f.s)
	f.OnDone(func(v T, err error) { p.Settle(v, err) })
	return g
}
