package task_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
)

// Two tasks share a queue; the deadline of the scope ends both.
func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	err = task.Run(l, func(t *task.Task) error {
		q := task.NewQueue[int](2)
		return t.With(func(sc *task.Scope) error {
			sc.Go("squares", func(t *task.Task) error {
				for i := 1; ; i++ {
					if err := q.Put(t, i*i); err != nil {
						return err
					}
				}
			})
			for range 3 {
				v, err := q.Get(t)
				if err != nil {
					return err
				}
				fmt.Println(v)
			}
			sc.SetTimeout(time.Millisecond) // a deadline can be moved
			return t.Sleep(time.Hour)
		}, task.Within(time.Minute))
	})
	fmt.Println(errors.Join(err, l.Close()))
	// Output:
	// 1
	// 4
	// 9
	// future: timed out
}

// A scope ends with its tasks. If one fails, the others are canceled, and the
// scope returns why.
func ExampleScope_Go() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	err = task.Run(l, func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			sc.Go("patient", func(t *task.Task) error {
				err := t.Sleep(time.Hour)
				fmt.Println("woken by:", err)
				return err
			})
			sc.Go("unlucky", func(t *task.Task) error {
				if err := t.Sleep(time.Millisecond); err != nil {
					return err
				}
				return errors.New("out of luck")
			})
			return nil
		})
	})
	fmt.Println(errors.Join(err, l.Close()))
	// Output:
	// woken by: future: canceled
	// out of luck
}

// A future is awaited as if it were a blocking call; the loop goes on meanwhile.
func ExampleAwait() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	err = task.Run(l, func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			square := func(n int) *future.Future[int] {
				return task.Go(sc, "square", func(*task.Task) (int, error) { return n * n, nil })
			}
			a, b := square(3), square(4) // both are under way
			x, err := task.Await(t, a)
			if err != nil {
				return err
			}
			y, err := task.Await(t, b)
			fmt.Println(x + y)
			return err
		})
	})
	if err := errors.Join(err, l.Close()); err != nil {
		fmt.Println(err)
	}
	// Output: 25
}
