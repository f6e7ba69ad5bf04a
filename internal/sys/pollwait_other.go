//go:build !unix

package sys

import (
	"errors"
	"time"
)

// PollWaiter waits for a descriptor, on systems that have descriptors.
type PollWaiter struct{}

// NewPollWaiter fails.
func NewPollWaiter() (*PollWaiter, error) { return nil, errors.ErrUnsupported }

// Quit has no effect.
func (*PollWaiter) Quit() {}

// Wait returns false.
func (*PollWaiter) Wait(int, time.Duration) bool { return false }

// Close has no effect.
func (*PollWaiter) Close() {}
