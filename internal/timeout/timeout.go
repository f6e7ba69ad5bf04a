// Package timeout provides the error for something that took too long.
package timeout

import (
	"context"
	"os"
)

// Error is a timeout in the sense of net.Error. It is also os.ErrDeadlineExceeded and
// context.DeadlineExceeded, and equal to no other Error.
type Error struct{ text string }

// New makes an Error that says text.
func New(text string) *Error { return &Error{text} }

func (e *Error) Error() string { return e.text }

// Timeout makes it a timeout in the sense of net.Error.
func (e *Error) Timeout() bool { return true }

// Temporary is the other method of net.Error.
func (e *Error) Temporary() bool { return true }

// Is supports errors.Is.
func (e *Error) Is(target error) bool {
	return target == os.ErrDeadlineExceeded || target == context.DeadlineExceeded
}
