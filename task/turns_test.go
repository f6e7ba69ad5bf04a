package task_test

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/weirtest"
)

// TestTurnsAndRuns: a task that begins in one Turn or Run is resumed by those that
// follow, even if they tie the loop to its thread (io_uring).
func TestTurnsAndRuns(t *testing.T) {
	turn := func(l *weir.Loop) error { return l.Turn(0) }
	run := func(l *weir.Loop) error {
		l.Stop() // it makes one turn
		return l.Run()
	}
	for _, name := range weir.Backends() {
		for _, c := range []struct {
			what   string
			begins []func(*weir.Loop) error
		}{
			{"turns", []func(*weir.Loop) error{turn, turn}},
			{"runs", []func(*weir.Loop) error{run, run}},
			{"run, then turns", []func(*weir.Loop) error{run, turn}},
			{"turn, then runs", []func(*weir.Loop) error{turn, run}},
		} {
			t.Run(name+" "+c.what, func(t *testing.T) {
				runtime.LockOSThread() // between two Runs the goroutine is its own
				defer runtime.UnlockOSThread()
				l, err := weir.NewLoop(weir.WithBackendName(name))
				if err != nil {
					t.Skip(err)
				}
				s := future.On(l)
				root := task.New(s)
				yields, ended := 0, false
				root.Go("yielding", func(t *task.Task) error {
					defer func() { ended = true }()
					for range 10 {
						if err := t.Yield(); err != nil {
							return err
						}
						yields++
					}
					return t.Sleep(time.Millisecond)
				})
				for _, f := range c.begins {
					if err := f(l); err != nil {
						t.Fatal(err)
					}
				}
				last := c.begins[1]
				for n := 0; yields < 10 && n < 100; n++ {
					if err := last(l); err != nil {
						t.Fatal(err)
					}
				}
				weirtest.Until(t, l, "the end of the task", func() bool { return ended })
				if err := errors.Join(root.Close(), s.Close(), l.Close()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
