package future_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
)

// TestPanicsAreFailures: if a function panics, ends its goroutine or returns no future,
// the future that waits for it still settles (L6).
func TestPanicsAreFailures(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name string
		make func(s *future.Scheduler) *future.Future[int]
		is   error
	}{
		{"Map panics", func(s *future.Scheduler) *future.Future[int] {
			return future.Map(future.Resolved(s, 1), func(int) (int, error) { panic(boom) })
		}, boom},
		{"Map exits", func(s *future.Scheduler) *future.Future[int] {
			return future.Map(future.Resolved(s, 1), func(int) (int, error) { runtime.Goexit(); return 0, nil })
		}, future.ErrGoexit},
		{"Then panics", func(s *future.Scheduler) *future.Future[int] {
			return future.Then(future.Resolved(s, 1), func(int) *future.Future[int] { panic(boom) })
		}, boom},
		{"Then exits", func(s *future.Scheduler) *future.Future[int] {
			return future.Then(future.Resolved(s, 1), func(int) *future.Future[int] { runtime.Goexit(); return nil })
		}, future.ErrGoexit},
		{"Then returns nil", func(s *future.Scheduler) *future.Future[int] {
			return future.Then(future.Resolved(s, 1), func(int) *future.Future[int] { return nil })
		}, nil},
		{"OnCancel panics", func(s *future.Scheduler) *future.Future[int] {
			f, p := future.New[int](s)
			p.OnCancel(func() { panic(boom) })
			f.Cancel()
			return f
		}, boom},
		{"a stop of FromFunc panics", func(s *future.Scheduler) *future.Future[int] {
			f := future.FromFunc(s, func(func(int, error)) func() { return func() { panic(boom) } })
			f.Cancel()
			return f
		}, boom},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := weir.NewLoop()
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			told := false
			l.Soon(func() {
				c.make(future.On(l)).OnDone(func(_ int, err error) {
					told = true
					if err == nil || c.is != nil && !errors.Is(err, c.is) {
						t.Errorf("failed with %v, want %v", err, c.is)
					}
					if p := (*future.PanicError)(nil); errors.Is(c.is, boom) && (!errors.As(err, &p) || len(p.Stack) == 0) {
						t.Errorf("%v is no PanicError", err)
					}
				})
			})
			// Run the turns on goroutines of their own: one of these may be ended.
			for range 8 {
				over := make(chan struct{})
				go func() {
					defer close(over)
					_ = l.Turn(0)
				}()
				<-over
			}
			if !told {
				t.Error("whoever waits was not told")
			}
		})
	}
}
