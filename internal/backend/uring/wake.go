//go:build linux

package uring

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// States of a waker.
//
//	         sleep                 wake: writes the descriptor
//	awake ─────────▶ asleep ─────────────────────────────────▶ woken
//	  │ ▲───────────── rise ◀───────────────────────────────────┘ │
//	  └── wake: no system call ──────────────▶ woken ─────────────┘
const (
	awake uint32 = iota
	asleep
	woken
)

// waker gets a Wait to return, from any goroutine, with at most one system call
// per sleep. The ring polls its descriptor, an eventfd that nobody reads: each
// write is an edge, and the poll stays armed.
type waker struct {
	state atomic.Uint32
	mu    sync.Mutex // guards fd between a late wake and close
	fd    int
	calls atomic.Uint64
}

func (w *waker) open() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("uring: eventfd: %w", err)
	}
	w.fd = fd
	return nil
}

// sleep says that a blocking wait comes next, unless a wake has come already;
// then that is used up and sleep returns false.
func (w *waker) sleep() bool {
	if w.state.CompareAndSwap(awake, asleep) {
		return true
	}
	w.state.Store(awake)
	return false
}

// rise says that the wait is over and reports whether a wake came.
func (w *waker) rise() bool { return w.state.Swap(awake) == woken }

// wake is called from any goroutine.
func (w *waker) wake() {
	if w.state.Swap(woken) != asleep {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd < 0 {
		return
	}
	w.calls.Add(1)
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	for {
		// EAGAIN means 2^64 - 2 unread wakes: then the poll has fired.
		if _, err := unix.Write(w.fd, one[:]); err != syscall.EINTR {
			return
		}
	}
}

// close closes the descriptor; a wake that comes late does nothing.
func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = unix.Close(w.fd)
	w.fd = -1
}
