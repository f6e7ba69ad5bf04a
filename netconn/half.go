package netconn

import (
	"net"
	"os"
	"sync"
	"time"
)

// half is what the two directions of a Conn have in common: callers wait, at most until
// a deadline.
type half struct {
	mu       sync.Mutex
	changed  sync.Cond // anything below, or a buffer; L is &mu
	busy     bool      // a caller is reading or writing; others wait for their turn
	waiters  int
	closed   bool  // Close was called here
	err      error // why nothing more can come or go
	expired  bool  // the deadline has passed
	deadline time.Time
	timer    *time.Timer
}

// wait releases the lock until something changes.
func (h *half) wait() {
	h.waiters++
	h.changed.Wait()
	h.waiters--
}

// wake makes every waiting caller check again.
func (h *half) wake() {
	if h.waiters > 0 {
		h.changed.Broadcast()
	}
}

// ended is the reason why a caller must not go on waiting, or nil.
func (h *half) ended() error {
	switch {
	case h.closed:
		return net.ErrClosed
	case h.expired:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// setDeadline makes callers fail from t on; never, if t is zero.
func (h *half) setDeadline(t time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return net.ErrClosed
	}
	h.deadline = t
	if t.IsZero() {
		h.expired = false
		h.stopTimer()
		return nil
	}
	h.arm()
	return nil
}

// arm sets expired, now or by a timer.
func (h *half) arm() {
	d := time.Until(h.deadline)
	h.expired = d <= 0
	switch {
	case h.expired:
		h.stopTimer()
		h.wake()
	case h.timer == nil:
		h.timer = time.AfterFunc(d, h.fire)
	default:
		h.timer.Reset(d)
	}
}

// fire is called by the timer, which may have been set again or stopped meanwhile.
func (h *half) fire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed && !h.deadline.IsZero() && !h.expired {
		h.arm()
	}
}

func (h *half) stopTimer() {
	if h.timer != nil {
		h.timer.Stop()
	}
}

// close makes every call fail. It reports false if that was already so.
func (h *half) close() bool {
	if h.closed {
		return false
	}
	h.closed = true
	h.stopTimer()
	h.wake()
	return true
}
