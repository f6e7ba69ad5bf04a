//go:build linux

package uring

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/sys"
)

// States of a waker.
//
//	         sleep                 wake: writes the descriptor
//	awake ─────────▶ asleep ─────────────────────────────────▶ woken
//	  │ ▲                                                       │ ▲
//	  │ └──────────────────────── rise ─────────────────────────┘ │
//	  └───────────────── wake: no system call ────────────────────┘
//
// With a host it goes back to asleep instead of awake.
const (
	awake uint32 = iota
	asleep
	woken
)

// waker gets a Wait to return, from any goroutine, with at most one system call
// per sleep. The ring polls its descriptor, an eventfd that nobody reads: each
// write is an edge, and the poll stays armed.
type waker struct {
	state  atomic.Uint32
	hosted atomic.Bool
	calls  atomic.Uint64

	mu sync.Mutex // guards fd between a late wake and close
	fd int
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
	if w.state.CompareAndSwap(awake, asleep) || w.state.CompareAndSwap(asleep, asleep) {
		return true
	}
	w.rise()
	return false
}

// rise says that the wait is over, or that there is none, and reports whether a
// wake came.
func (w *waker) rise() bool {
	next := awake
	if w.hosted.Load() {
		next = asleep
	}
	return w.state.Swap(next) == woken
}

// host says whether somebody watches the ring from outside, so that wakes have
// to show at any time.
func (w *waker) host(on bool) {
	w.hosted.Store(on)
	if !on {
		w.state.CompareAndSwap(asleep, awake)
		return
	}
	if !w.state.CompareAndSwap(awake, asleep) && w.state.Load() == woken {
		w.write() // a wake that nobody saw
	}
}

// wake is called from any goroutine.
func (w *waker) wake() {
	if w.state.Load() != woken && w.state.Swap(woken) == asleep {
		w.write()
	}
}

func (w *waker) write() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd < 0 {
		return
	}
	w.calls.Add(1)
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, errno := sys.Write(w.fd, one[:]); errno == syscall.EAGAIN {
		// The counter is near its end, after 2^64 - 2 wakes.
		sys.Read(w.fd, one[:])
		sys.Write(w.fd, one[:])
	}
}

// close closes the descriptor; a wake that comes late does nothing.
func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	sys.Close(w.fd)
	w.fd = -1
}
