//go:build windows

package iocp

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/windows"
)

// States of a waker.
//
//	         sleep                  wake: posts a packet
//	awake ─────────▶ asleep ──────────────────────────────▶ woken
//	  │ ▲                                                    │ ▲
//	  │ └──────────────────────── rise ──────────────────────┘ │
//	  └───────────────── wake: no system call ─────────────────┘
//
// With a host it goes back to asleep instead of awake.
const (
	awake uint32 = iota
	asleep
	woken
)

// waker makes a Wait, or an Await, return, from any goroutine, with at most one packet per
// sleep. A packet that is taken late has no effect: the state says whether a wake is due.
type waker struct {
	state  atomic.Uint32
	hosted atomic.Bool
	posts  atomic.Uint64

	mu      sync.Mutex
	port    windows.Handle // 0 once closed
	waiting int            // Awaits at the port
	left    sync.Cond      // waiting has become 0
	taken   []packet       // what Await took from the port, for the next Wait
	watched <-chan struct{}
	unwatch chan struct{} // closed: the goroutine that watches it ends
}

// Wake makes a Wait return; see backend.Backend.
func (b *Backend) Wake() { b.waker.wake() }

func (w *waker) wake() {
	if w.state.Load() != woken && w.state.Swap(woken) == asleep {
		w.post(wakeKey)
	}
}

func (w *waker) post(key uintptr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.port == 0 {
		return
	}
	w.posts.Add(1)
	// It fails only if the system has no memory for a packet, and nothing can be done about
	// that here: the state stays woken, so that the next Wait does not sleep.
	_ = windows.PostQueuedCompletionStatus(w.port, 0, key, nil)
}

// sleep says that a wait comes next, unless a wake has already come; it then consumes the
// wake and returns false.
func (w *waker) sleep() bool {
	if w.state.CompareAndSwap(awake, asleep) || w.state.CompareAndSwap(asleep, asleep) {
		return true
	}
	w.rise()
	return false
}

// rise says that the wait is over, and reports whether a wake came.
func (w *waker) rise() bool {
	next := awake
	if w.hosted.Load() {
		next = asleep
	}
	return w.state.Swap(next) == woken
}

// prompt tells a host that the next Wait has something to look at.
func (w *waker) prompt() {
	if w.hosted.Load() {
		w.wake()
	}
}

// takeIn hands over the packets that an Await took, and reports whether there were any.
func (w *waker) takeIn(b *Backend) bool {
	if !w.hosted.Load() && !b.closed && !w.used() {
		return false
	}
	w.mu.Lock()
	taken := w.taken
	w.taken = nil
	w.mu.Unlock()
	for i := range taken {
		b.completed(&taken[i])
	}
	return len(taken) > 0
}

func (w *waker) used() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.taken) > 0
}

// Host tells the backend whether a host waits in Await and then calls Wait with timeout 0;
// see backend.Awaiter. It belongs to the loop's goroutine.
func (b *Backend) Host(on bool) {
	w := &b.waker
	w.hosted.Store(on)
	if !on {
		w.state.CompareAndSwap(asleep, awake)
		return
	}
	if !w.state.CompareAndSwap(awake, asleep) && w.state.Load() == woken {
		w.post(wakeKey) // a wake that no one saw
	}
	if b.pending() || len(b.refusals) > 0 || b.asider.due.Load() {
		w.prompt()
	}
}

// Await waits for what Wait would report; see backend.Awaiter. It takes packets from the
// port, which has no way to look at them only, and keeps them for the next Wait.
func (b *Backend) Await(timeout time.Duration, quit <-chan struct{}) {
	if timeout == 0 {
		return
	}
	select {
	case <-quit:
		return
	default:
	}
	w := &b.waker
	w.mu.Lock()
	if w.port == 0 {
		w.mu.Unlock()
		select { // after Close there is nothing but the end to wait for
		case <-quit:
		case <-time.After(max(timeout, 0)):
		}
		return
	}
	if len(w.taken) > 0 {
		w.mu.Unlock()
		return
	}
	w.watch(quit)
	w.waiting++
	port := w.port
	w.mu.Unlock()

	var some [batch]packet
	n, _ := b.calls.dequeue(port, some[:], milliseconds(timeout))

	w.mu.Lock()
	for i := range some[:n] {
		if some[i].key == portKey {
			w.taken = append(w.taken, some[i])
		}
	}
	if w.waiting--; w.waiting == 0 && w.port == 0 {
		w.left.Broadcast()
	}
	w.mu.Unlock()
}

// watch has a goroutine end Awaits when quit is closed: a port cannot be waited for together
// with a channel. One serves all Awaits with the same quit. w.mu is held.
func (w *waker) watch(quit <-chan struct{}) {
	if quit == nil || w.watched == quit {
		return
	}
	if w.unwatch != nil {
		close(w.unwatch)
	}
	stop := make(chan struct{})
	w.watched, w.unwatch = quit, stop
	go func() {
		select {
		case <-quit:
			w.post(awaitKey)
		case <-stop:
		}
	}()
}

// close keeps later wakes away from the port, and waits until no Await is at it.
func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left.L == nil {
		w.left.L = &w.mu
	}
	port := w.port
	w.port = 0
	if w.unwatch != nil {
		close(w.unwatch)
		w.unwatch, w.watched = nil, nil
	}
	for w.waiting > 0 {
		_ = windows.PostQueuedCompletionStatus(port, 0, awaitKey, nil)
		w.left.Wait()
	}
	w.taken = nil
}
