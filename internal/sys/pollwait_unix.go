//go:build unix

package sys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// PollWaiter waits for a descriptor to become readable until it is told to quit, through a pipe of
// its own.
type PollWaiter struct{ r, w int }

// NewPollWaiter makes a PollWaiter. It has two descriptors until Close.
func NewPollWaiter() (*PollWaiter, error) {
	fds, err := Pipe()
	if err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	return &PollWaiter{fds[0], fds[1]}, nil
}

// Quit ends the waiting. Any goroutine may call it, before Close.
func (q *PollWaiter) Quit() {
	for {
		// An empty pipe takes a byte; only a signal can keep it from doing so.
		if _, err := unix.Write(q.w, []byte{0}); err != unix.EINTR {
			return
		}
	}
}

// Wait returns when fd is readable or d has passed (below 0: never); it returns false
// if it is to quit.
func (q *PollWaiter) Wait(fd int, d time.Duration) bool {
	ms := -1
	if d >= 0 {
		ms = int(min((d+time.Millisecond-1)/time.Millisecond, 1<<30))
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(q.r), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, ms)
		if err != unix.EINTR {
			return fds[1].Revents == 0
		}
	}
}

// Close is called by the waiting goroutine after it was told to quit, when nothing
// writes to the pipe any more.
func (q *PollWaiter) Close() { CloseAll(q.r, q.w) }
