// Package timeout has the error of what took too long.
package timeout

import (
	"context"
	"os"
)

// Error is a timeout as net.Error has them. It is os.ErrDeadlineExceeded and
// context.DeadlineExceeded too, and equal to no other Error.
type Error struct{ text string }

// New makes an Error that says text.
func New(text string) *Error { return &Error{text} }

func (e *Error) Error() string { return e.text }

// Timeout implements net.Error.
func (e *Error) Timeout() bool { return true }

// Temporary implements net.Error.
func (e *Error) Temporary() bool { return true }

// Is is for errors.Is.
func (e *Error) Is(target error) bool {
	return target == os.ErrDeadlineExceeded || target == context.DeadlineExceeded
}
