package task_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
)

// A scope whose child fails cancels the others, waits for them, and returns all
// errors joined (behaviour 80, R56).
func TestFailingChild(t *testing.T) {
	w := newWorld(t)
	err := w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			sc.Go("slow", func(t *task.Task) error {
				err := t.Sleep(time.Hour)
				w.note("slow: %v", err)
				_ = t.With(func(*task.Scope) error { return t.Sleep(time.Second) }, task.Shielded())
				w.note("slow cleaned up after %v", w.sim.Now())
				return errors.New("clean-up failed")
			})
			sc.Go("fails", func(t *task.Task) error {
				if err := t.Sleep(time.Second); err != nil {
					return err
				}
				return errTest
			})
			err := t.Sleep(time.Hour)
			w.note("body: %v, cause %v", err, sc.Cause())
			return err
		})
	})
	w.logged("body: future: canceled, cause test failure", "slow: future: canceled", "slow cleaned up after 2s")
	if !errors.Is(err, errTest) || err.Error() != "test failure\nclean-up failed" || errors.Is(err, future.ErrCanceled) {
		t.Errorf("%q", err)
	}
}

// With waits for its tasks, and a body that fails cancels them.
func TestBodyEndsFirst(t *testing.T) {
	w := newWorld(t)
	err := w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			sc.Go("child", func(t *task.Task) error {
				defer w.note("child ends")
				return t.Sleep(time.Second)
			})
			return nil
		})
	})
	w.note("%v after %v", err, w.sim.Now())
	err = w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			sc.Go("child", func(t *task.Task) error {
				defer w.note("child ends")
				return t.Sleep(time.Hour)
			})
			if err := t.Yield(); err != nil {
				return err
			}
			return errTest
		})
	})
	w.note("%v", err)
	w.logged("child ends", "<nil> after 1s", "child ends", "test failure")
}

// Deadlines move, and an inner one never swallows an outer cancellation; a
// result that arrives with the deadline is not lost (behaviour 79).
func TestDeadlines(t *testing.T) {
	w := newWorld(t)
	err := w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			for range 5 {
				if err := t.Sleep(900 * time.Millisecond); err != nil {
					return err
				}
				sc.SetTimeout(time.Second)
			}
			err := t.Sleep(time.Hour)
			w.note("%v after %v, cause %v", err, w.sim.Now(), sc.Cause())
			return err
		}, task.Within(time.Second))
	})
	w.logged("future: canceled after 5.5s, cause future: timed out")
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, future.ErrTimeout) {
		t.Error(err)
	}
	// The deadline is removed again.
	err = w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			sc.SetDeadline(time.Time{})
			return t.Sleep(time.Minute)
		}, task.Within(time.Second))
	})
	if err != nil {
		t.Error(err)
	}
	// The body is done when its deadline comes: no failure.
	for _, first := range []bool{true, false} {
		err = w.run(func(t *task.Task) error {
			f, p := future.New[int](w.s)
			p.OnCancel(func() {})
			set := func() { w.loop.After(time.Second, func() { p.Resolve(1) }) }
			if first {
				set()
			}
			return t.With(func(sc *task.Scope) error {
				sc.SetTimeout(time.Second)
				if !first {
					set()
				}
				v, err := task.Await(t, f)
				w.note("%v %v, canceled %v", v, err, sc.Canceled())
				return err
			})
		})
		if err != nil {
			t.Error(err)
		}
	}
	w.logged("1 <nil>, canceled true", "1 <nil>, canceled true")
	// If the deadline cuts children short it is a timeout.
	err = w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			sc.Go("child", func(t *task.Task) error { return t.Sleep(time.Hour) })
			return nil
		}, task.Within(time.Second))
	})
	if !errors.Is(err, future.ErrTimeout) {
		t.Error(err)
	}
	// Both are due: the outer cancellation wins.
	err = w.run(func(t *task.Task) error {
		outer := t.With(func(out *task.Scope) error {
			inner := t.With(func(*task.Scope) error { return t.Sleep(time.Hour) }, task.Within(time.Second))
			w.note("inner: %v", inner)
			return t.Sleep(time.Hour)
		}, task.Within(time.Second))
		w.note("outer: %v", outer)
		return nil
	})
	w.logged("inner: future: canceled", "outer: future: timed out")
	if err != nil {
		t.Error(err)
	}
}

// The shield keeps the outer cancellation out until it is removed.
func TestShield(t *testing.T) {
	w := newWorld(t)
	victim := w.root.Go("victim", func(t *task.Task) error {
		err := t.With(func(sc *task.Scope) error {
			if err := t.Sleep(10 * time.Second); err != nil {
				return err
			}
			w.note("shielded until %v", w.sim.Now())
			w.loop.After(time.Second, func() { sc.SetShield(false) })
			err := t.Sleep(time.Hour)
			w.note("unshielded: %v after %v", err, w.sim.Now())
			return err
		}, task.Shielded())
		return err
	})
	w.loop.After(time.Second, victim.Cancel)
	w.rest()
	w.logged("shielded until 10s", "unshielded: future: canceled after 11s")
	// A shielded scope's own deadline still counts.
	err := w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error { return t.Sleep(time.Hour) }, task.Shielded(), task.Within(time.Second))
	})
	if !errors.Is(err, future.ErrTimeout) {
		t.Error(err)
	}
}

// The start handshake.
func TestStart(t *testing.T) {
	w := newWorld(t)
	err := w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			v, err := task.Start(t, sc, "server", func(t *task.Task, started func(int)) error {
				if err := t.Sleep(time.Second); err != nil {
					return err
				}
				started(7000)
				err := t.Sleep(time.Hour)
				w.note("server: %v", err)
				return err
			})
			w.note("port %d %v after %v", v, err, w.sim.Now())
			_, err = task.Start(t, sc, "broken", func(t *task.Task, started func(int)) error { return errTest })
			w.note("broken: %v, scope canceled %v", err, sc.Canceled())
			_, err = task.Start(t, sc, "silent", func(t *task.Task, started func(int)) error { return nil })
			w.note("silent: %v", err)
			err = t.With(func(*task.Scope) error {
				_, err := task.Start(t, sc, "slow", func(t *task.Task, started func(int)) error {
					err := t.Sleep(time.Hour)
					w.note("slow: %v", err)
					return err
				})
				return err
			}, task.Within(time.Second))
			w.note("slow start: %v", err)
			sc.Cancel(nil)
			return nil
		})
	})
	w.logged("port 7000 <nil> after 1s", "broken: test failure, scope canceled false",
		"silent: task: ended without saying that it had started",
		"slow: future: canceled", "slow start: future: timed out", "server: future: canceled")
	if err != nil {
		t.Error(err)
	}
}

// Independent tasks do not cancel each other.
func TestIndependent(t *testing.T) {
	w := newWorld(t)
	err := w.run(func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			sc.Go("bad", func(t *task.Task) error { return errTest })
			sc.Go("good", func(t *task.Task) error {
				defer w.note("good ends")
				return t.Sleep(time.Second)
			})
			return nil
		}, task.Independent(func(t *task.Task, err error) { w.note("%s: %v", t.Name(), err) }))
	})
	w.logged("bad: test failure", "good ends")
	if err != nil {
		t.Error(err)
	}
}
