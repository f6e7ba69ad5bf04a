package task_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/weirtest"
)

var errTest = errors.New("test failure")

// world is a simulated loop with a root scope on it. log records what the tasks do.
type world struct {
	*testing.T
	sim  *weirtest.Sim
	loop *weir.Loop
	s    *future.Scheduler
	root *task.Scope
	log  []string
}

func newWorld(t *testing.T, opts ...task.Option) *world {
	weirtest.CheckLeaks(t)
	w := &world{T: t, sim: weirtest.NewSim(t, 1)}
	w.loop = w.sim.Host("h").Loop()
	w.s = future.On(w.loop, future.AtCloseOnly(), future.WithUnseen(func(err error) { t.Error(err) }))
	w.root = task.New(w.s, opts...)
	t.Cleanup(func() {
		if err := w.root.Close(); err != nil {
			var left *task.LeftError
			if errors.As(err, &left) {
				t.Error(err)
			}
		}
		if err := w.s.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

// rest lets everything run until nothing is left to do.
func (w *world) rest() {
	w.Helper()
	if err := w.sim.Run(nil); err != nil {
		w.Fatal(err)
	}
}

// run runs fn as a task and lets everything run. It returns the root's error.
func (w *world) run(fn func(t *task.Task) error) error {
	w.Helper()
	var got error
	w.root.Go("test", func(t *task.Task) error {
		got = fn(t)
		return nil
	})
	w.rest()
	return got
}

func (w *world) logged(want ...string) {
	w.Helper()
	if !slices.Equal(w.log, want) {
		w.Errorf("happened:\n%s\nwant:\n%s", strings.Join(w.log, "\n"), strings.Join(want, "\n"))
	}
	w.log = nil
}

// Tasks run in turns, in order, and by the loop's clock (R55).
func TestTurns(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a", "b"} {
		w.root.Go(name, func(t *task.Task) error {
			for i := range 2 {
				w.note("%s%d", t.Name(), i)
				if err := t.Yield(); err != nil {
					return err
				}
			}
			if err := t.Sleep(time.Minute); err != nil {
				return err
			}
			w.note("%s after %v", t.Name(), w.sim.Now())
			return nil
		})
	}
	w.note("started")
	w.rest()
	w.logged("started", "a0", "b0", "a1", "b1", "a after 1m0s", "b after 1m0s")
}

// A value, a failure and a future that was there already.
func TestAwait(t *testing.T) {
	w := newWorld(t)
	f, p := future.New[int](w.s)
	g := future.Rejected[int](w.s, errTest)
	err := w.run(func(t *task.Task) error {
		w.loop.After(time.Second, func() { p.Resolve(4); w.note("resolved") })
		v, err := task.Await(t, f)
		w.note("%d %v", v, err)
		v, err = task.Await(t, f)
		w.note("%d %v", v, err)
		_, err = task.Await(t, g)
		return err
	})
	w.logged("resolved", "4 <nil>", "4 <nil>")
	if !errors.Is(err, errTest) {
		t.Error(err)
	}
}

// Gather waits for many without tasks for each (R54).
func TestAwaitGather(t *testing.T) {
	w := newWorld(t)
	fs := make([]*future.Future[int], 100)
	for i := range fs {
		fs[i] = future.Map(future.After(w.s, time.Duration(100-i)*time.Millisecond), func(struct{}) (int, error) { return i, nil })
	}
	err := w.run(func(t *task.Task) error {
		vs, err := task.Await(t, future.Gather(w.s, fs...))
		if len(vs) != 100 || vs[42] != 42 {
			w.Errorf("got %v", vs)
		}
		if n := w.root.Tasks(); n != 1 {
			w.Errorf("%d tasks", n)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// An Await that is cut short cancels a future that no one else waits for.
func TestAwaitCutShort(t *testing.T) {
	w := newWorld(t)
	alone, _ := future.New[int](w.s)
	shared, _ := future.New[int](w.s)
	shared.OnDone(func(int, error) {})
	shielded, _ := future.New[int](w.s)
	for _, f := range []*future.Future[int]{alone, shared, future.Shield(shielded)} {
		w.root.Go("waits", func(t *task.Task) error {
			_, err := task.Await(t, f)
			return err
		})
	}
	w.rest()
	w.root.Cancel(nil)
	w.rest()
	if !alone.Canceling() || shared.Canceling() || shielded.Canceling() {
		t.Error(alone.Canceling(), shared.Canceling(), shielded.Canceling())
	}
	shared.Cancel()
}

// In a canceled scope every wait returns the cancellation, each time, and
// others get their turns between (behaviour 81).
func TestEveryWaitIsCanceled(t *testing.T) {
	w := newWorld(t)
	lock, queue := &task.Lock{}, task.NewQueue[int](3)
	queue.TryPut(1)
	event := &task.Event{}
	event.Set()
	sem := task.NewSemaphore(1)
	settled := future.Resolved(w.s, 1)
	waits := []func(t *task.Task) error{
		func(t *task.Task) error { return t.Yield() },
		func(t *task.Task) error { return t.Sleep(time.Hour) },
		func(t *task.Task) error { return t.Sleep(0) },
		func(t *task.Task) error { _, err := task.Await(t, settled); return err },
		func(t *task.Task) error { return lock.Lock(t) },
		func(t *task.Task) error { return event.Wait(t) },
		func(t *task.Task) error { return sem.Acquire(t) },
		func(t *task.Task) error { _, err := queue.Get(t); return err },
		func(t *task.Task) error { return queue.Put(t, 2) },
		func(t *task.Task) error { return (&task.Cond{L: &task.Lock{}}).Wait(t) },
	}
	var victim *task.Task
	others := 0
	victim = w.root.Go("victim", func(t *task.Task) error {
		for i := range 3 {
			for j, wait := range waits {
				before := others
				err := wait(t)
				if j == len(waits)-1 {
					if !errors.Is(err, task.ErrNotLocked) {
						w.Error(err)
					}
					continue
				}
				if !errors.Is(err, future.ErrCanceled) || !errors.Is(err, context.Canceled) {
					w.Errorf("round %d, wait %d: %v", i, j, err)
				}
				if others == before {
					w.Errorf("round %d, wait %d: no turn for others", i, j)
				}
			}
		}
		return t.Yield()
	})
	w.root.Go("other", func(t *task.Task) error {
		for range 100 {
			others++
			if err := t.Yield(); err != nil {
				return err
			}
		}
		return nil
	})
	victim.Cancel()
	w.rest()
	if ended, err := victim.Ended(); !ended || !errors.Is(err, future.ErrCanceled) {
		t.Error(ended, err)
	}
	if queue.Len() != 1 || lock.Held() || sem.Free() != 1 {
		t.Errorf("lost: %d in the queue, held %v, free %d", queue.Len(), lock.Held(), sem.Free())
	}
	if w.root.Canceled() {
		t.Error("a canceled task is no failure")
	}
}

// A task that swallows its cancellation keeps its result; one that cancels
// itself and returns is canceled (behaviour 78).
func TestSwallowed(t *testing.T) {
	w := newWorld(t)
	swallows := task.Go(w.root, "swallows", func(t *task.Task) (int, error) {
		_ = t.Sleep(time.Hour)
		return 7, nil
	})
	w.loop.After(time.Second, func() { swallows.Cancel() })
	itself := w.root.Go("itself", func(t *task.Task) error {
		t.Cancel()
		return nil
	})
	heard := w.root.Go("heard", func(t *task.Task) error {
		t.Cancel()
		_ = t.Yield()
		return nil
	})
	w.rest()
	if v, err, ok := swallows.Result(); v != 7 || err != nil || !ok {
		t.Error(v, err, ok)
	}
	if _, err := itself.Ended(); !errors.Is(err, future.ErrCanceled) {
		t.Error(err)
	}
	if _, err := heard.Ended(); err != nil {
		t.Error(err)
	}
	if w.sim.Now() > time.Minute {
		t.Error("it slept on")
	}
}

// A panic is the failure of this task alone.
func TestPanic(t *testing.T) {
	w := newWorld(t)
	err := w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			sc.Go("panics", func(t *task.Task) error {
				defer w.note("deferred")
				return t.With(func(sc *task.Scope) error {
					sc.Go("inner", func(t *task.Task) error {
						err := t.Sleep(time.Hour)
						w.note("inner: %v", err)
						return err
					})
					if err := t.Yield(); err != nil {
						return err
					}
					panic(errTest)
				})
			})
			return nil
		})
	})
	w.logged("inner: future: canceled", "deferred")
	var p *task.PanicError
	if !errors.As(err, &p) || p.Task != "panics" || !errors.Is(err, errTest) || !strings.Contains(string(p.Stack), "TestPanic") {
		t.Errorf("%v", err)
	}
}

// Goexit ends the task, not the loop; no goroutine is left.
func TestGoexit(t *testing.T) {
	w := newWorld(t)
	err := w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			sc.Go("exits", func(t *task.Task) error {
				defer w.note("deferred")
				runtime.Goexit()
				return nil
			})
			err := t.Sleep(time.Hour)
			w.note("%v", err)
			return err
		})
	})
	w.logged("deferred", "future: canceled")
	if !errors.Is(err, task.ErrGoexit) {
		t.Error(err)
	}
}

// A task in a scope that has ended does not run, and says so.
func TestEnded(t *testing.T) {
	w := newWorld(t)
	var kept *task.Scope
	if err := w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error { kept = sc; return nil })
	}); err != nil {
		t.Error(err)
	}
	late := kept.Go("late", func(*task.Task) error { w.note("ran"); return nil })
	f := task.Go(kept, "late", func(*task.Task) (int, error) { w.note("ran"); return 0, nil })
	w.rest()
	if ended, err := late.Ended(); !ended || !errors.Is(err, task.ErrEnded) {
		t.Error(ended, err)
	}
	if _, err, _ := f.Result(); !errors.Is(err, task.ErrEnded) {
		t.Error(err)
	}
	late.Done().Seen()
	w.logged()
}

// A wait by anyone other than the task is an error.
func TestOutside(t *testing.T) {
	w := newWorld(t)
	sleeper := w.root.Go("sleeper", func(t *task.Task) error { return t.Sleep(time.Second) })
	w.loop.Soon(func() {
		for _, err := range []error{
			sleeper.Yield(), sleeper.Sleep(time.Second), (&task.Event{}).Wait(sleeper),
			sleeper.With(func(*task.Scope) error { return nil }),
		} {
			if !errors.Is(err, task.ErrOutside) {
				t.Error(err)
			}
		}
	})
	w.rest()
	if ended, err := sleeper.Ended(); !ended || err != nil {
		t.Error(ended, err)
	}
}

// The tree shows where each task is.
func TestTree(t *testing.T) {
	w := newWorld(t, task.Named("server"), task.Traced())
	f, _ := future.New[int](w.s)
	q := task.NewQueue[int](1)
	q.Name = "jobs"
	w.root.Go("accept", func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			sc.Go("worker", func(t *task.Task) error { _, err := q.Get(t); return err })
			return nil
		}, task.Named("workers"))
	})
	w.root.Go("waits", func(t *task.Task) error { _, err := task.Await(t, f); return err })
	var here int
	w.root.Go("parks", func(t *task.Task) error {
		_, _, here, _ = runtime.Caller(0)
		return t.Park(nothing{}) // the test's own wait; its line is checked below
	})
	if err := w.sim.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(w.root.String()), "\n")
	for i, want := range []string{
		"server", "├─ accept: waits for tasks of workers at task_test.go:",
		"│  └─ workers", "│     └─ worker: waits for a queue (jobs) at task_test.go:",
		"├─ waits: waits for a future at task_test.go:",
		fmt.Sprintf("└─ parks: waits for nothing at task_test.go:%d", here+1),
	} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Fatalf("line %d is not %q:\n%s", i, want, w.root)
		}
	}
	w.root.Cancel(errTest)
	if got := w.root.String(); !strings.HasPrefix(got, "server, canceled: test failure\n") || !strings.Contains(got, "is about to run") {
		t.Error(got)
	}
	w.rest()
	if got := w.root.String(); got != "server, canceled: test failure\n" {
		t.Error(got)
	}
}

// Close runs what is left to its end though the loop is gone.
func TestCloseAfterTheLoop(t *testing.T) {
	w := newWorld(t)
	w.root.Go("stays", func(t *task.Task) error {
		err := t.Sleep(time.Hour)
		w.note("%v", err)
		err = t.Sleep(time.Hour)
		w.note("%v", err)
		return errTest
	})
	if err := w.sim.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	if err := w.loop.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.root.Close(); !errors.Is(err, errTest) {
		t.Error(err)
	}
	w.logged("future: canceled", "future: canceled")
}

// Run runs a real loop for a program, on every backend (R2), and also in debug mode,
// which checks which goroutine it is on.
func TestRun(t *testing.T) {
	for _, name := range weir.Backends() {
		for _, debug := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, debug %v", name, debug), func(t *testing.T) {
				weirtest.CheckLeaks(t)
				opts := []weir.LoopOption{weir.WithBackendName(name)}
				if debug {
					opts = append(opts, weir.WithDebug(time.Minute))
				}
				l, err := weir.NewLoop(opts...)
				if err != nil {
					t.Skip(name, ": ", err)
				}
				for range 2 {
					n := 0
					err = task.Run(l, func(t *task.Task) error {
						for range 3 {
							t.Go("child", func(t *task.Task) error {
								l.Soon(func() { n++ })
								return t.Sleep(time.Millisecond)
							})
						}
						return t.Sleep(2 * time.Millisecond)
					})
					if n != 3 || err != nil {
						t.Error(n, err)
					}
				}
				err = task.Run(l, func(t *task.Task) error {
					t.Go("child", func(t *task.Task) error { return t.Sleep(time.Hour) })
					return errTest
				})
				if !errors.Is(err, errTest) {
					t.Error(err)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A task that cannot be resumed where the loop runs now is named, and does not
// end the program.
func TestOtherThread(t *testing.T) {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fake := &otherThread{Loop: l, thread: 1}
	s := future.On(fake)
	root := task.New(s)
	ran := 0
	root.Go("bound", func(t *task.Task) error {
		ran++
		if err := t.Sleep(time.Hour); err != nil {
			ran++
			return err
		}
		return nil
	})
	if err := l.Turn(0); err != nil {
		t.Fatal(err)
	}
	fake.thread = 2
	var left *task.LeftError
	if err := root.Close(); !errors.As(err, &left) || left.Tasks != 1 || !strings.Contains(left.Tree, "bound: cannot be resumed on this thread") {
		t.Error(err)
	}
	if ran != 1 {
		t.Error("it ran on")
	}
}

type otherThread struct {
	*weir.Loop
	thread uint64
}

func (o *otherThread) Thread() uint64 { return o.thread }

// Join waits for another task, which goes on if the wait is cut short; Until is
// a deadline by the clock; Post starts a task from elsewhere.
func TestJoinUntilPost(t *testing.T) {
	w := newWorld(t)
	if err := w.root.Post("posted", func(t *task.Task) error {
		slow := t.Go("slow", func(t *task.Task) error {
			if err := t.Sleep(10 * time.Second); err != nil {
				return err
			}
			return t.Sleep(0)
		})
		err := t.With(func(sc *task.Scope) error {
			w.note("until %v", sc.Deadline().Sub(w.s.Now()))
			return t.Join(slow)
		}, task.Until(w.s.Now().Add(time.Second)))
		w.note("%v after %v", err, w.sim.Now())
		w.note("%v after %v", t.Join(slow), w.sim.Now())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.rest()
	w.logged("until 1s", "future: timed out after 1s", "<nil> after 10s")
}
