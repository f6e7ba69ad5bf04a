package future_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
)

// Three questions are asked; the first one to be answered within a second counts.
func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	s := future.On(l)
	ask := func(after time.Duration, answer string, err error) *future.Future[string] {
		return future.FromFunc(s, func(done func(string, error)) (stop func()) {
			tm := l.After(after, func() { done(answer, err) })
			return func() { tm.Stop() }
		})
	}
	first := future.FirstSuccess(s,
		ask(time.Hour, "too late", nil),
		ask(2*time.Millisecond, "an answer", nil),
		ask(time.Millisecond, "", errors.New("no")),
	)
	future.Timeout(first, time.Minute).OnDone(func(answer string, err error) {
		fmt.Println(answer, err)
		l.Stop()
	})
	if err := errors.Join(l.Run(), s.Close(), l.Close()); err != nil {
		fmt.Println(err)
	}
	// Output: an answer <nil>
}

// One after another: each step begins with the result of the last one, and a failure of
// any step is the failure of all.
func ExampleThen() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	s := future.On(l)
	double := func(n int) *future.Future[int] {
		f, p := future.New[int](s)
		l.Soon(func() { p.Resolve(2 * n) }) // or whenever the answer comes
		return f
	}
	future.Then(double(3), double).OnDone(func(n int, err error) {
		fmt.Println(n, err)
		l.Stop()
	})
	if err := errors.Join(l.Run(), s.Close(), l.Close()); err != nil {
		fmt.Println(err)
	}
	// Output: 12 <nil>
}

// All at once: the answers come in the order of the questions.
func ExampleGather() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	s := future.On(l)
	after := func(d time.Duration) *future.Future[string] {
		return future.Map(future.After(s, d), func(struct{}) (string, error) { return d.String(), nil })
	}
	future.Gather(s, after(2*time.Millisecond), after(time.Millisecond)).OnDone(func(all []string, err error) {
		fmt.Println(all, err)
		l.Stop()
	})
	if err := errors.Join(l.Run(), s.Close(), l.Close()); err != nil {
		fmt.Println(err)
	}
	// Output: [2ms 1ms] <nil>
}
