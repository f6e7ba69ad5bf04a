package executor_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/weirtest"
)

// rig is a loop that the test turns, with a Scheduler.
type rig struct {
	*testing.T
	loop *weir.Loop
	s    *future.Scheduler
}

func newRig(t *testing.T) *rig {
	t.Helper()
	l, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { t.Error("reported: ", err) }))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t, l, future.On(l)}
	t.Cleanup(func() {
		for d, ok := l.Next(); ok && d == 0; d, ok = l.Next() {
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// until turns the loop until f has settled.
func until[T any](r *rig, f *future.Future[T]) (T, error) {
	r.Helper()
	f.OnDone(func(T, error) { r.loop.Stop() })
	bound := r.loop.After(20*time.Second, r.loop.Stop)
	defer bound.Stop()
	if err := r.loop.Run(); err != nil {
		r.Fatal(err)
	}
	if !f.Settled() {
		r.Fatal("waited in vain")
	}
	v, err, _ := f.Result()
	return v, err
}

func TestValue(t *testing.T) {
	r := newRig(t)
	e := executor.New("disk", 2, 10)
	f := executor.Go(context.Background(), e, r.s, func(ctx context.Context) (string, error) {
		label, _ := pprof.Label(ctx, "executor")
		return label, nil
	})
	if f.Settled() {
		t.Error("settled inside Go")
	}
	if v, err := until(r, f); v != "disk" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
	sorry := errors.New("sorry")
	f = executor.Go(context.Background(), e, r.s, func(context.Context) (string, error) { return "half", sorry })
	if v, err := until(r, f); v != "half" || !errors.Is(err, sorry) {
		t.Errorf("got %q, %v", v, err)
	}
	f = executor.Go(context.Background(), e, r.s, func(context.Context) (string, error) { panic(sorry) })
	var p *executor.PanicError
	if _, err := until(r, f); !errors.As(err, &p) || !errors.Is(err, sorry) || p.Executor != "disk" || len(p.Stack) == 0 {
		t.Errorf("a panic: %v", err)
	}
	e.Wait()
	if running, queued := e.Load(); running != 0 || queued != 0 {
		t.Errorf("at rest %d run and %d wait (G6)", running, queued)
	}
}

// TestBounds: work runs in order, and no more runs or waits than the bounds allow.
func TestBounds(t *testing.T) {
	r := newRig(t)
	e := executor.New("bounded", 2, 30)
	var now, most atomic.Int32
	gate, began := make(chan struct{}), make(chan struct{}, 32)
	var futures []*future.Future[int]
	for i := range 32 {
		futures = append(futures, executor.Go(context.Background(), e, r.s, func(context.Context) (int, error) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			began <- struct{}{}
			<-gate
			return i, nil
		}))
	}
	if running, queued := e.Load(); running != 2 || queued != 30 {
		t.Errorf("%d run and %d wait", running, queued)
	}
	if _, err := until(r, executor.Go(context.Background(), e, r.s, func(context.Context) (int, error) { return 0, nil })); !errors.Is(err, executor.ErrFull) || !strings.Contains(err.Error(), "executor bounded is full: 2 run and 30 wait; ") {
		t.Errorf("one too many: %v", err)
	}
	<-began
	<-began
	close(gate)
	got, err := until(r, future.Gather(r.s, futures...))
	if err != nil || len(got) != 32 || !slices.IsSorted(got) {
		t.Errorf("got %v, %v", got, err)
	}
	if m := most.Load(); m != 2 {
		t.Errorf("%d ran at once", m)
	}
}

func TestCancel(t *testing.T) {
	r := newRig(t)
	e := executor.New("one", 1, 10)
	began, gate := make(chan struct{}), make(chan struct{})
	blocked := executor.Go(context.Background(), e, r.s, func(ctx context.Context) (int, error) {
		close(began)
		<-ctx.Done()
		<-gate
		return 7, ctx.Err()
	})
	<-began
	never := func(context.Context) (int, error) {
		t.Error("canceled work ran")
		return 0, nil
	}
	queued := executor.Go(context.Background(), e, r.s, never)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("not needed")
	withContext := executor.Go(ctx, e, r.s, never)

	queued.Cancel()
	if _, err, ok := queued.Result(); !ok || !errors.Is(err, future.ErrCanceled) {
		t.Errorf("canceled while queued: %v, %v", err, ok)
	}
	cancel(why)
	if _, err := until(r, withContext); !errors.Is(err, why) {
		t.Errorf("its context ended while queued: %v", err)
	}
	if _, err := until(r, executor.Go(ctx, e, r.s, never)); !errors.Is(err, why) {
		t.Errorf("with a context that had ended: %v", err)
	}

	blocked.Cancel()
	if blocked.Settled() {
		t.Error("work that runs was given up")
	}
	close(gate)
	if v, err := until(r, blocked); v != 7 || !future.OnlyCanceled(err) || !errors.Is(err, future.ErrCanceled) {
		t.Errorf("canceled while it ran: %d, %v", v, err)
	}

	// A result that arrives despite the cancel is not lost.
	began = make(chan struct{})
	stubborn := executor.Go(context.Background(), e, r.s, func(ctx context.Context) (int, error) {
		close(began)
		<-ctx.Done()
		return 8, nil
	})
	<-began
	stubborn.Cancel()
	if v, err := until(r, stubborn); v != 8 || err != nil {
		t.Errorf("got %d, %v", v, err)
	}
}

func TestClose(t *testing.T) {
	r := newRig(t)
	e := executor.New("short-lived", 1, 10)
	began := make(chan struct{})
	running := executor.Go(context.Background(), e, r.s, func(ctx context.Context) (int, error) {
		close(began)
		<-ctx.Done()
		return 0, context.Cause(ctx)
	})
	<-began
	queued := executor.Go(context.Background(), e, r.s, func(context.Context) (int, error) { return 0, nil })
	for range 2 {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	e.Wait()
	for what, f := range map[string]*future.Future[int]{
		"running": running,
		"queued":  queued,
		"late":    executor.Go(context.Background(), e, r.s, func(context.Context) (int, error) { return 0, nil }),
	} {
		if _, err := until(r, f); !errors.Is(err, executor.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestCancelStorm: work is canceled at any moment, by its future, by its context and by
// Close. Every future settles, once (G7), and nothing is left.
func TestCancelStorm(t *testing.T) {
	weirtest.CheckLeaks(t)
	r := newRig(t)
	random := rand.New(rand.NewPCG(1, 2))
	e := executor.New("storm", 4, 50)
	const jobs = 2000
	settled := make([]int, jobs)
	left, full, done := jobs, 0, 0
	for i := range jobs {
		r.loop.Soon(func() {
			ctx, cancel := context.WithCancel(context.Background())
			f := executor.Go(ctx, e, r.s, func(ctx context.Context) (int, error) {
				if i%3 == 0 {
					<-ctx.Done()
					return 0, ctx.Err()
				}
				return i, nil
			})
			f.OnDone(func(v int, err error) {
				cancel()
				settled[i]++
				switch {
				case errors.Is(err, executor.ErrFull):
					full++
				case err == nil && v == i:
					done++
				case !errors.Is(err, context.Canceled) && !errors.Is(err, executor.ErrClosed):
					t.Errorf("job %d: %v", i, err)
				}
				if left--; left == 0 {
					r.loop.Stop()
				}
			})
			how := []func(){func() { f.Cancel() }, cancel}[random.IntN(2)]
			switch random.IntN(3) {
			case 0:
				how()
			default:
				r.loop.After(time.Duration(random.IntN(300))*time.Microsecond, how)
			}
			if i == jobs-100 {
				_ = e.Close()
			}
		})
		if i%20 == 0 {
			if err := r.loop.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
	}
	bound := r.loop.After(20*time.Second, r.loop.Stop)
	defer bound.Stop()
	if err := r.loop.Run(); err != nil {
		t.Fatal(err)
	}
	for i, n := range settled {
		if n != 1 {
			t.Fatalf("job %d settled %d times", i, n)
		}
	}
	if done == 0 {
		t.Error("no job was done")
	}
	t.Logf("%d done, %d found the queue full, the others were canceled", done, full)
	e.Wait()
}

// TestInline: the same trace for the same seed, in a simulated run (behaviour
// 94).
func TestInline(t *testing.T) {
	run := func() (order []string, hash uint64) {
		sim := weirtest.NewSim(t, 5)
		l := sim.Host("host").Loop()
		s := future.On(l)
		e := executor.Inline("sim")
		left := 0
		for i := range 5 {
			left++
			f := executor.Go(context.Background(), e, s, func(context.Context) (int, error) {
				order = append(order, fmt.Sprint("work ", i))
				return i, nil
			})
			f.OnDone(func(v int, err error) {
				order = append(order, fmt.Sprint("done ", v, " ", err))
				left--
			})
			if i == 3 {
				f.Cancel()
			}
		}
		sim.Until("everything done", func() bool { return left == 0 })
		return order, sim.TraceHash()
	}
	order, hash := run()
	again, hash2 := run()
	if !slices.Equal(order, again) || hash != hash2 {
		t.Errorf("two runs differ:\n%q\n%q", order, again)
	}
	want := []string{"done 0 future: canceled", "work 0", "work 1", "work 2", "work 4", "done 0 <nil>", "done 1 <nil>", "done 2 <nil>", "done 4 <nil>"}
	if !slices.Equal(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
}

// TestGoexit: work that ends its goroutine fails, its place is free for the next,
// and Wait returns (L6).
func TestGoexit(t *testing.T) {
	r := newRig(t)
	e := executor.New("exits", 1, 4)
	var errs [2]error
	first := executor.Go(context.Background(), e, r.s, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
	next := executor.Go(context.Background(), e, r.s, func(context.Context) (int, error) { return 7, nil })
	first.OnDone(func(_ int, err error) { errs[0] = err })
	next.OnDone(func(v int, err error) {
		if v != 7 {
			t.Errorf("the next work returned %d", v)
		}
		errs[1] = err
		r.loop.Stop()
	})
	bound := r.loop.After(30*time.Second, r.loop.Stop)
	if err := r.loop.Run(); err != nil {
		t.Fatal(err)
	}
	bound.Stop()
	if !errors.Is(errs[0], future.ErrGoexit) || !next.Settled() || errs[1] != nil {
		t.Errorf("failed with %v; the next one settled: %v, %v", errs[0], next.Settled(), errs[1])
	}
	e.Wait()
	if running, queued := e.Load(); running+queued > 0 {
		t.Errorf("%d running and %d queued", running, queued)
	}
}

// TestDo: work without a future runs, or is refused, or is told that it will not run; what
// it tells a loop that is being closed arrives.
func TestDo(t *testing.T) {
	r := newRig(t)
	e := executor.New("do", 1, 1)
	release, ran := make(chan struct{}), make(chan string, 3)
	never := func(err error) { t.Errorf("dropped: %v", err) }
	if err := executor.Do(e, r.s, func() { ran <- "first"; <-release }, never); err != nil {
		t.Fatal(err)
	}
	if got := <-ran; got != "first" {
		t.Error(got)
	}
	if err := executor.Do(e, r.s, func() { t.Error("it ran after Close") }, func(err error) {
		if !errors.Is(err, executor.ErrClosed) {
			t.Error(err)
		}
		ran <- "dropped"
	}); err != nil {
		t.Fatal(err)
	}
	if err := executor.Do(e, r.s, func() {}, never); !errors.Is(err, executor.ErrFull) {
		t.Errorf("a third: %v", err)
	}
	_ = e.Close() // always nil
	if got := <-ran; got != "dropped" {
		t.Error(got)
	}
	if err := executor.Do(e, r.s, func() {}, never); !errors.Is(err, executor.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	close(release)
	e.Wait()

	inline := executor.Inline("do")
	done := false
	if err := executor.Do(inline, r.s, func() { done = true }, never); err != nil || done {
		t.Fatalf("%v, ran at once: %v", err, done)
	}
	weirtest.Until(t, r.loop, "inline work", func() bool { return done })
}

// TestInlineLoopClosed: inline work that has not begun when its loop is closed is dropped,
// and its owner is told; the work of another loop goes on.
func TestInlineLoopClosed(t *testing.T) {
	weirtest.CheckLeaks(t)
	e := executor.Inline("inline")
	other := newRig(t)
	l, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { t.Error("reported: ", err) }))
	if err != nil {
		t.Fatal(err)
	}
	s := future.On(l)
	var dropped error
	if err := executor.Do(e, s, func() { t.Error("it ran") }, func(err error) { dropped = err }); err != nil {
		t.Fatal(err)
	}
	executor.Go(context.Background(), e, s, func(context.Context) (int, error) {
		t.Error("it ran")
		return 0, nil
	})
	ran := executor.Go(context.Background(), e, other.s, func(context.Context) (int, error) { return 7, nil })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(dropped, executor.ErrLoopClosed) {
		t.Errorf("Do was told %v", dropped)
	}
	if v, err := until(other, ran); v != 7 || err != nil {
		t.Errorf("the other loop's work: %d, %v", v, err)
	}
	if running, queued := e.Load(); running != 0 || queued != 0 {
		t.Errorf("%d run and %d wait", running, queued)
	}
}

// TestInlineTenantClosed: inline work that has not begun when its tenant is closed, or its
// tenant's loop is, is dropped and its owner told; what must not be left out is done.
func TestInlineTenantClosed(t *testing.T) {
	weirtest.CheckLeaks(t)
	e := executor.Inline("inline")
	l, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { t.Error("reported: ", err) }))
	if err != nil {
		t.Fatal(err)
	}
	for _, closes := range []string{"tenant", "loop"} {
		tn := l.NewTenant(closes)
		s := future.On(tn)
		var dropped error
		ensured := 0
		if err := executor.Do(e, s, func() { t.Error("it ran") }, func(err error) { dropped = err }); err != nil {
			t.Fatal(err)
		}
		executor.Ensure(e, s, func() { ensured++ })
		executor.Go(context.Background(), e, s, func(context.Context) (int, error) {
			t.Error("it ran")
			return 0, nil
		})
		if closes == "tenant" {
			tn.Close(nil)
			weirtest.Until(t, l, "the work to be dropped", func() bool { return dropped != nil && ensured == 1 })
			if _, err := tn.PostOr(func() { t.Error("it ran") }, func() { t.Error("it was told") }); !errors.Is(err, tn.Closed()) {
				t.Errorf("after Close: %v", err)
			}
		} else if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(dropped, executor.ErrLoopClosed) || ensured != 1 {
			t.Errorf("the %s is closed: Do was told %v, Ensure's ran %d times", closes, dropped, ensured)
		}
		if running, queued := e.Load(); running != 0 || queued != 0 {
			t.Errorf("the %s is closed: %d run and %d wait", closes, running, queued)
		}
	}
}

// TestEnsure: work that must not be left out runs although the queue is full or the executor
// is closed, in the executor's bound of goroutines before that, and Wait waits for it.
func TestEnsure(t *testing.T) {
	r := newRig(t)
	e := executor.New("ensure", 1, 1)
	release := make(chan struct{})
	var ran atomic.Int64
	count := func() { ran.Add(1) }
	for range 2 { // one runs, one fills the queue
		if err := executor.Do(e, r.s, func() { <-release }, func(error) {}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		executor.Ensure(e, r.s, count)
	}
	if running, queued := e.Load(); running != 1 || queued != 4 || ran.Load() != 0 {
		t.Errorf("%d run and %d wait, %d ran", running, queued, ran.Load())
	}
	_ = e.Close() // always nil
	if running, queued := e.Load(); running != 1 || queued != 3 {
		t.Errorf("after Close %d run and %d wait", running, queued)
	}
	close(release)
	e.Wait()
	if ran.Load() != 3 {
		t.Errorf("%d of 3 ran", ran.Load())
	}
	executor.Ensure(e, r.s, count)
	e.Wait()
	if ran.Load() != 4 {
		t.Error("after Close it did not run")
	}

	inline := executor.Inline("ensure")
	executor.Ensure(inline, r.s, count)
	if ran.Load() != 4 {
		t.Error("inline work ran at once")
	}
	_ = inline.Close() // always nil
	executor.Ensure(inline, r.s, count)
	if ran.Load() != 6 {
		t.Errorf("a closed inline executor: %d ran", ran.Load())
	}
}
