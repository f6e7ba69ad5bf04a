package future_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/weirtest"
)

var errTest = errors.New("test failure")

// world is a simulated loop with a Scheduler on it.
type world struct {
	*testing.T
	sim    *weirtest.Sim
	loop   *weir.Loop
	s      *future.Scheduler
	unseen []error
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, sim: weirtest.NewSim(t, 1)}
	w.loop = w.sim.Host("h").Loop()
	w.s = future.On(w.loop, future.AtCloseOnly(), future.WithUnseen(func(err error) { w.unseen = append(w.unseen, err) }))
	return w
}

// rest lets everything run until nothing is left to do.
func (w *world) rest() {
	w.Helper()
	if err := w.sim.Run(nil); err != nil {
		w.Fatal(err)
	}
}

// end describes how f settled.
func end[T any](w *world, f *future.Future[T]) string {
	w.Helper()
	w.rest()
	v, err, ok := f.Result()
	switch {
	case !ok:
		return "open"
	case err != nil:
		return err.Error()
	}
	return fmt.Sprint(v)
}

func (w *world) is(got, want string) {
	w.Helper()
	if got != want {
		w.Errorf("got %q, want %q", got, want)
	}
}

// A callback runs in a later turn, whether the future settles before or after
// it is added (R53, behaviour 76).
func TestCallbacksAreNeverCalledFromInside(t *testing.T) {
	w := newWorld(t)
	var log []string
	f, p := future.New[int](w.s)
	w.loop.Soon(func() {
		f.OnDone(func(v int, err error) { log = append(log, fmt.Sprint("first ", v, err)) })
		p.Resolve(7)
		log = append(log, "resolved")
		f.OnDone(func(int, error) {
			log = append(log, "second")
			f.OnDone(func(int, error) { log = append(log, "third") })
			log = append(log, "added third")
		})
		log = append(log, "added second")
	})
	w.rest()
	want := []string{"resolved", "added second", "first 7 <nil>", "second", "added third", "third"}
	if !slices.Equal(log, want) {
		t.Errorf("got %q, want %q", log, want)
	}
}

// A future settles once (G7).
func TestSettlesOnce(t *testing.T) {
	w := newWorld(t)
	f, p := future.New[int](w.s)
	calls := 0
	f.OnDone(func(int, error) { calls++ })
	if !p.Resolve(1) || p.Resolve(2) || p.Reject(errTest) || f.Cancel() {
		t.Error("only the first settles")
	}
	w.is(end(w, f), "1")
	if calls != 1 {
		t.Errorf("called %d times", calls)
	}
	g, q := future.New[int](w.s)
	q.Reject(nil)
	if _, err, _ := g.Result(); err == nil {
		t.Error("rejected with nil, and no failure")
	}
}

// A callback that panics is reported by the loop, and the others are called.
func TestPanicInCallback(t *testing.T) {
	w := newWorld(t)
	f, g := future.Resolved(w.s, 1), future.Resolved(w.s, 2)
	var log []string
	f.OnDone(func(int, error) { panic("here") })
	f.OnDone(func(int, error) { log = append(log, "f") })
	g.OnDone(func(int, error) { log = append(log, "g") })
	w.rest()
	if len(log) != 2 {
		t.Errorf("called %q", log)
	}
	if len(w.sim.Failures) != 1 || !strings.Contains(w.sim.Failures[0].Error(), "here") {
		t.Errorf("reported %v", w.sim.Failures)
	}
}

// Post settles from another goroutine.
func TestPost(t *testing.T) {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	s := future.On(l)
	f, p := future.New[string](s)
	got := ""
	f.OnDone(func(v string, _ error) { got = v; l.Stop() })
	go p.Post("from elsewhere", nil)
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	if got != "from elsewhere" {
		t.Errorf("got %q", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Post("late", nil); !errors.Is(err, weir.ErrLoopClosed) {
		t.Errorf("after the loop's end: %v", err)
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	f, p := future.New[int](w.s)
	if !f.Cancel() || p.Resolve(1) {
		t.Error("Cancel settles")
	}
	if _, err, _ := f.Result(); !errors.Is(err, future.ErrCanceled) || !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	// With OnCancel the worker settles the future, and may still succeed.
	g, q := future.New[int](w.s)
	asked := 0
	q.OnCancel(func() { asked++ })
	first, again := g.Cancel(), g.Cancel()
	if !first || !again || asked != 1 || g.Settled() || !g.Canceling() {
		t.Errorf("asked %d times, settled %v", asked, g.Settled())
	}
	q.Resolve(5)
	w.is(end(w, g), "5")
	// OnCancel after Cancel is called at once.
	h, r := future.New[int](w.s)
	r.OnCancel(func() { r.OnCancel(func() { r.Resolve(9) }) })
	h.Cancel()
	w.is(end(w, h), "9")
}

// Gather: the first error is reported at once and the siblings go on, unless asked
// otherwise; canceling it cancels the children (R54, behaviour 77).
func TestGather(t *testing.T) {
	w := newWorld(t)
	three := func() ([]*future.Future[int], []future.Promise[int]) {
		fs, ps := make([]*future.Future[int], 3), make([]future.Promise[int], 3)
		for i := range fs {
			fs[i], ps[i] = future.New[int](w.s)
		}
		return fs, ps
	}
	w.is(end(w, future.Gather[int](w.s)), "[]")

	fs, ps := three()
	g := future.Gather(w.s, fs...)
	ps[2].Resolve(3)
	ps[0].Resolve(1)
	w.is(end(w, g), "open")
	ps[1].Resolve(2)
	w.is(end(w, g), "[1 2 3]")

	fs, ps = three()
	g = future.Gather(w.s, fs...)
	ps[1].Reject(errTest)
	w.is(end(w, g), errTest.Error())
	if fs[0].Settled() || fs[2].Settled() {
		t.Error("the siblings were stopped")
	}
	ps[0].Reject(errors.New("later"))
	ps[2].Resolve(1)
	w.is(end(w, g), errTest.Error())

	fs, ps = three()
	g = future.GatherStrict(w.s, fs...)
	ps[1].Reject(errTest)
	w.is(end(w, g), errTest.Error())
	w.is(end(w, fs[0])+end(w, fs[2]), strings.Repeat(future.ErrCanceled.Error(), 2))

	fs, ps = three()
	g = future.Gather(w.s, fs...)
	ps[0].Resolve(1)
	g.Cancel()
	w.is(end(w, g)+end(w, fs[1]), strings.Repeat(future.ErrCanceled.Error(), 2))
	w.is(end(w, fs[0]), "1")

	fs, ps = three()
	all := future.GatherAll(w.s, fs...)
	ps[0].Reject(errTest)
	ps[2].Resolve(3)
	fs[1].Cancel()
	w.is(end(w, all), "[{0 test failure} {0 future: canceled} {3 <nil>}]")

	if err := w.s.Close(); err != nil || len(w.unseen) != 0 {
		t.Errorf("every failure was seen by a gather: %v %v", err, w.unseen)
	}
}

func TestRaceAndFirstSuccess(t *testing.T) {
	w := newWorld(t)
	w.is(end(w, future.Race[int](w.s)), future.ErrNothing.Error())
	a, pa := future.New[int](w.s)
	b, _ := future.New[int](w.s)
	r := future.Race(w.s, a, b)
	pa.Reject(errTest)
	w.is(end(w, r)+" "+end(w, b), errTest.Error()+" "+future.ErrCanceled.Error())

	a, pa = future.New[int](w.s)
	b, pb := future.New[int](w.s)
	c, _ := future.New[int](w.s)
	r = future.FirstSuccess(w.s, a, b, c)
	pa.Reject(errTest)
	w.is(end(w, r), "open")
	pb.Resolve(2)
	w.is(end(w, r)+" "+end(w, c), "2 "+future.ErrCanceled.Error())

	a, b = future.Rejected[int](w.s, errTest), future.Rejected[int](w.s, errors.New("other"))
	r = future.FirstSuccess(w.s, a, b)
	w.is(end(w, r), "test failure\nother")

	a, _ = future.New[int](w.s)
	r = future.Race(w.s, a)
	r.Cancel()
	w.is(end(w, a)+" "+end(w, r), future.ErrCanceled.Error()+" "+future.ErrCanceled.Error())
}

func TestAsCompleted(t *testing.T) {
	w := newWorld(t)
	fs, ps := make([]*future.Future[string], 4), make([]future.Promise[string], 4)
	for i := range fs {
		fs[i], ps[i] = future.New[string](w.s)
	}
	row := future.AsCompleted(w.s, fs...)
	ps[2].Resolve("c")
	w.is(end(w, row[0]), "{2 c <nil>}")
	row[1].Cancel()
	ps[0].Reject(errTest)
	w.is(end(w, row[1])+end(w, row[2]), future.ErrCanceled.Error()+"{0  test failure}")
	ps[1].Resolve("b")
	ps[3].Resolve("d")
	w.is(end(w, row[3]), "{1 b <nil>}")
}

func TestBothMapThenShield(t *testing.T) {
	w := newWorld(t)
	a, pa := future.New[int](w.s)
	b, pb := future.New[string](w.s)
	both := future.Both(w.s, a, b)
	pb.Resolve("x")
	pa.Resolve(1)
	w.is(end(w, both), "{1 x}")
	w.is(end(w, future.Both(w.s, a, future.Rejected[int](w.s, errTest))), errTest.Error())

	m := future.Map(a, func(v int) (string, error) { return fmt.Sprint("<", v, ">"), nil })
	w.is(end(w, m), "<1>")
	w.is(end(w, future.Map(m, func(string) (int, error) { return 0, errTest })), errTest.Error())

	next, _ := future.New[int](w.s)
	th := future.Then(a, func(int) *future.Future[int] { return next })
	w.is(end(w, th), "open")
	th.Cancel()
	w.is(end(w, th)+end(w, next), strings.Repeat(future.ErrCanceled.Error(), 2))
	// Canceled between the steps: the second step gets the cancel.
	next, _ = future.New[int](w.s)
	th = future.Then(future.Resolved(w.s, 1), func(int) *future.Future[int] { return next })
	th.Cancel()
	w.is(end(w, th)+end(w, next), strings.Repeat(future.ErrCanceled.Error(), 2))

	c, pc := future.New[int](w.s)
	sh := future.Shield(c)
	sh.Cancel()
	w.is(end(w, sh), future.ErrCanceled.Error())
	if c.Canceling() || !pc.Resolve(3) {
		t.Error("the shielded future was canceled")
	}
}

// A value that arrives with the timeout, or after the cancel it caused, is not
// lost (behaviour 79).
func TestTimeout(t *testing.T) {
	w := newWorld(t)
	a, _ := future.New[int](w.s)
	to := future.Timeout(a, time.Second)
	w.is(end(w, to), future.ErrTimeout.Error())
	if _, err, _ := to.Result(); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error("not a deadline")
	}
	if d := w.sim.Now(); d < time.Second || d > 1100*time.Millisecond {
		t.Errorf("after %v", d)
	}
	if !a.Canceling() {
		t.Error("the late future goes on")
	}
	// Both in the same turn, whichever timer comes first.
	for _, first := range []bool{true, false} {
		b, pb := future.New[int](w.s)
		set := func() { w.loop.After(time.Second, func() { pb.Resolve(2) }) }
		if first {
			set()
		}
		pb.OnCancel(func() {}) // settles by itself
		to = future.Timeout(b, time.Second)
		if !first {
			set()
		}
		w.is(end(w, to), "2")
	}
	// An outer cancel stays a cancel.
	c, _ := future.New[int](w.s)
	to = future.Timeout(c, time.Second)
	to.Cancel()
	w.is(end(w, to)+end(w, c), strings.Repeat(future.ErrCanceled.Error(), 2))
	// A failure is passed on, and the timer is gone.
	before := w.sim.Now()
	to = future.Timeout(future.Rejected[int](w.s, errTest), time.Hour)
	w.is(end(w, to), errTest.Error())
	if w.sim.Now() > before+time.Minute {
		t.Error("the timer of what has ended still ran")
	}
}

func TestConversions(t *testing.T) {
	w := newWorld(t)
	w.is(end(w, future.After(w.s, time.Minute)), "{}")
	a := future.After(w.s, time.Hour)
	before := w.sim.Now()
	a.Cancel()
	w.is(end(w, a), future.ErrCanceled.Error())
	if w.sim.Now() > before+time.Minute {
		t.Error("the canceled timer still ran")
	}

	var done func(int, error)
	stopped := 0
	mk := func() *future.Future[int] {
		return future.FromFunc(w.s, func(d func(int, error)) func() {
			done = d
			return func() { stopped++ }
		})
	}
	f := mk()
	done(4, nil)
	done(5, nil)
	w.is(end(w, f), "4")
	f = mk()
	f.Cancel()
	done(5, nil)
	w.is(end(w, f), future.ErrCanceled.Error())
	if stopped != 1 {
		t.Errorf("stopped %d times", stopped)
	}
	f, p := future.New[int](w.s)
	ch := future.Chan(f)
	p.Settle(8, errTest)
	w.rest()
	if r, ok := <-ch; r.Value != 8 || !errors.Is(r.Err, errTest) || !ok {
		t.Errorf("from the channel: %+v %v", r, ok)
	}
	if _, ok := <-ch; ok {
		t.Error("the channel stays open")
	}
}

// Channels and contexts are settled by other goroutines, so these run on a real
// loop (R57).
func TestGoroutineEdges(t *testing.T) {
	weirtest.CheckLeaks(t)
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	s := future.On(l)
	ch, closed, never := make(chan int), make(chan int), make(chan int)
	close(closed)
	ctx, cancel := context.WithCancelCause(t.Context())
	fs := []*future.Future[string]{
		text(future.FromChan(s, ch)),
		text(future.FromChan(s, closed)),
		text(future.FromChan(s, never)),
		text(future.FromContext(s, ctx)),
		text(future.FromContext(s, context.Background())),
	}
	work, _ := future.New[int](s)
	fs = append(fs, text(future.WithContext(ctx, work)))
	cb, call := future.Callback[int](s)
	fs = append(fs, text(cb))
	late, end := future.New[int](s)
	derived := future.Context(t.Context(), late)
	go func() {
		ch <- 1
		cancel(errTest)
		call(6, nil)
		call(7, nil)
		_ = end.Post(0, errTest)
		<-derived.Done()
		_ = s.Post(func() {
			fs[2].Cancel()
			fs[4].Cancel()
		})
	}()
	all := future.GatherAll(s, fs...)
	all.OnDone(func([]future.Result[string], error) { l.Stop() })
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	res, _, _ := all.Result()
	var got []string
	for _, r := range res {
		if r.Err != nil {
			r.Value = r.Err.Error()
		}
		got = append(got, r.Value)
	}
	want := []string{"1", future.ErrNothing.Error(), future.ErrCanceled.Error(), errTest.Error(), future.ErrCanceled.Error(), future.ErrCanceled.Error(), "6"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(context.Cause(derived), errTest) {
		t.Errorf("cause %v", context.Cause(derived))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func text[T any](f *future.Future[T]) *future.Future[string] {
	return future.Map(f, func(v T) (string, error) { return fmt.Sprint(v), nil })
}

// A failure that no one looked at is reported, once, in the order of settling; one that
// someone looked at is not, nor is a cancellation.
func TestUnseen(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		future.Rejected[int](w.s, fmt.Errorf("failure %d", i))
	}
	future.Rejected[int](w.s, errTest).OnDone(func(int, error) {})
	future.Rejected[int](w.s, errTest).Result()
	future.Rejected[int](w.s, errTest).Seen()
	f, _ := future.New[int](w.s)
	f.Cancel()
	w.rest()
	if len(w.unseen) != 0 {
		t.Errorf("early: %v", w.unseen)
	}
	for range 2 {
		if err := w.s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(w.unseen); len(w.unseen) != 3 || strings.Index(got, "failure 0") > strings.Index(got, "failure 1") || !strings.Contains(got, "failure 2") {
		t.Errorf("reported %v", w.unseen)
	}
	var u *future.UnseenError
	if !errors.As(w.unseen[0], &u) || errors.Is(u.Err, future.ErrCanceled) {
		t.Errorf("%T", w.unseen[0])
	}
}

// The collector finds the failures that no one can look at any more.
func TestUnseenCollected(t *testing.T) {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	var got error
	s := future.On(l, future.WithUnseen(func(err error) { got = err; l.Stop() }))
	future.Rejected[int](s, errTest)
	kept := future.Rejected[int](s, errors.New("kept"))
	deadline := l.After(time.Minute, l.Stop)
	tick := l.NewTimer(runtime.GC)
	tick.Repeat(time.Millisecond)
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(got, errTest) {
		t.Errorf("reported %v", got)
	}
	kept.Seen()
	deadline.Stop()
	tick.Stop()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyCanceled(t *testing.T) {
	c := future.ErrCanceled
	for _, x := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{c, true},
		{context.Canceled, true},
		{fmt.Errorf("reading: %w", c), true},
		{errors.Join(c, c), true},
		{errors.Join(c, errTest), false},
		{errTest, false},
		{future.ErrTimeout, false},
	} {
		if got := future.OnlyCanceled(x.err); got != x.want {
			t.Errorf("%v: %v", x.err, got)
		}
	}
}

// Flush runs what a closed loop would drop.
func TestFlush(t *testing.T) {
	w := newWorld(t)
	n := 0
	var again func(int, error)
	again = func(int, error) {
		if n++; n < 5 {
			future.Resolved(w.s, 1).OnDone(again)
		}
	}
	future.Resolved(w.s, 1).OnDone(again)
	if err := w.s.Flush(); err != nil || n != 5 {
		t.Errorf("%d runs: %v", n, err)
	}
	future.Resolved(w.s, 1).OnDone(again)
	w.rest()
	if n != 6 {
		t.Error("after Flush the loop is not asked any more")
	}
}

// Settling with one callback allocates nothing but the future (R6).
func TestAllocations(t *testing.T) {
	w := newWorld(t)
	fn := func(int, error) {}
	got := testing.AllocsPerRun(100, func() {
		f, p := future.New[int](w.s)
		f.OnDone(fn)
		p.Resolve(1)
		_ = w.s.Flush()
	})
	if got > 2 {
		t.Errorf("%v allocations", got)
	}
}
