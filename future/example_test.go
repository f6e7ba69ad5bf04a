package future_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
)

// Three questions are asked; what is wanted is the first answer that is one,
// within a second.
func Example() {
	l, err := weir.New()
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
