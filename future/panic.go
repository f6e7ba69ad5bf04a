package future

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// ErrGoexit is the failure of a future whose function ended its goroutine with
// runtime.Goexit, as testing's FailNow does.
var ErrGoexit = errors.New("future: the function called runtime.Goexit")

var errNilFuture = errors.New("future: the function of Then returned nil")

// PanicError is the failure of a future whose function panicked.
type PanicError struct {
	Where string // what the function was passed to: "Map", "Then", "OnCancel"
	Value any    // what was passed to panic
	Stack []byte // the stack of the panic
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("future: panic in a function of %s: %v", e.Where, e.Value)
}

// Unwrap returns the panic's value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// safely calls fn and turns a panic into an error. A Goexit, which the goroutine does
// not survive, becomes an error that is passed to failed.
func safely(where string, fn func() error, failed func(error)) {
	err := ErrGoexit
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Where: where, Value: v, Stack: debug.Stack()}
		}
		if err != nil {
			failed(err)
		}
	}()
	err = fn()
}
