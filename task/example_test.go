package task_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/task"
)

// Two tasks share a queue; the deadline of the scope ends both.
func Example() {
	l, err := weir.New()
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
			return t.Sleep(time.Hour)
		}, task.Within(10*time.Millisecond))
	})
	fmt.Println(errors.Join(err, l.Close()))
	// Output:
	// 1
	// 4
	// 9
	// future: timed out
}
