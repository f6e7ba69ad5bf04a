//go:build unix

package weir

import (
	"time"

	"golang.org/x/sys/unix"
)

// quitter waits for a descriptor until it is told to quit, which it learns from
// a pipe of its own.
type quitter struct{ r, w int }

func newQuitter() (*quitter, func(), error) {
	fds, err := pipe()
	if err != nil {
		return nil, nil, sysError("pipe2", err)
	}
	q := &quitter{fds[0], fds[1]}
	return q, q.quit, nil
}

// quit ends the waiting, from any goroutine.
func (q *quitter) quit() {
	for {
		// An empty pipe takes a byte; only a signal can keep it from doing so.
		if _, err := unix.Write(q.w, []byte{0}); err != unix.EINTR {
			return
		}
	}
}

// wait returns when fd is readable or d has passed (below 0: never); false when
// it is to quit.
func (q *quitter) wait(fd int, d time.Duration) bool {
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

// close is called by the waiting goroutine once it was told to quit, so nobody
// writes to the pipe any more.
func (q *quitter) close() { closeFDs(q.r, q.w) }
