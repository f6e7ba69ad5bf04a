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

// waker makes a Wait return, from any goroutine, with at most one system call per
// sleep. The ring polls its descriptor, an eventfd that no one reads: each write is an
// edge, and the poll stays armed.
type waker struct {
	state  atomic.Uint32
	hosted atomic.Bool
	calls  atomic.Uint64

	mu   sync.Mutex // guards the descriptors between a late wake and close
	fd   int
	host int // readable while a host's next Wait has something to do
}

func (w *waker) open() error {
	w.fd, w.host = -1, -1
	for _, fd := range []*int{&w.fd, &w.host} {
		var err error
		if *fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			return fmt.Errorf("uring: eventfd: %w", err)
		}
	}
	return nil
}

// sleep says that a blocking wait comes next, unless a wake has already come; in that
// case it consumes the wake and returns false.
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

// watched says whether a host watches the ring from outside, so that wakes have to show
// at any time.
func (w *waker) watched(on bool) {
	w.hosted.Store(on)
	if !on {
		w.state.CompareAndSwap(asleep, awake)
		return
	}
	if !w.state.CompareAndSwap(awake, asleep) && w.state.Load() == woken {
		w.write() // a wake that no one saw
	}
}

// wake is called from any goroutine.
func (w *waker) wake() {
	if w.state.Load() != woken && w.state.Swap(woken) == asleep {
		w.write()
	}
}

// write makes a Wait in progress return, and tells a host.
func (w *waker) write() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls.Add(1)
	add(w.fd)
	if w.hosted.Load() {
		add(w.host)
	}
}

// tell tells a host that the next Wait has something to do.
func (w *waker) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	add(w.host)
}

// hush clears the host's descriptor: what it announced is looked at next. It belongs to
// the loop's goroutine.
func (w *waker) hush() {
	var count [8]byte
	sys.Read(w.host, count[:])
}

// add adds one to an eventfd, if it is open.
func add(fd int) {
	if fd < 0 {
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, errno := sys.Write(fd, one[:]); errno == syscall.EAGAIN {
		// The counter is near its end, after 2^64 - 2 wakes.
		sys.Read(fd, one[:])
		sys.Write(fd, one[:])
	}
}

// close closes the descriptors; a wake that comes late does nothing.
func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, fd := range []*int{&w.fd, &w.host} {
		if *fd >= 0 {
			sys.Close(*fd)
		}
		*fd = -1
	}
}
