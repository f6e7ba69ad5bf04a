package task

import (
	"errors"

	"github.com/weir-io/weir/future"
)

// RunLoop is a loop that Run can run; weir.Loop is one.
type RunLoop[C any, T future.Timer] interface {
	future.Loop[C, T]
	Run() error
	Stop()
}

// Run runs a loop until fn and every task that it started have ended, and returns what
// failed. fn is the task "main". If something else stops the loop before that, the
// tasks are canceled and run to their end, see Scope.Close. The loop is not closed.
func Run[C any, T future.Timer](l RunLoop[C, T], fn func(t *Task) error, opts ...Option) error {
	s := future.On(l)
	root := New(s, opts...)
	root.Go("main", fn)
	var err error
	root.Done().OnDone(func(_ struct{}, failed error) {
		err = failed
		l.Stop()
	})
	err = errors.Join(l.Run(), err)
	if root.Tasks() > 0 {
		err = errors.Join(err, root.Close())
	}
	return errors.Join(err, s.Close())
}
