//go:build linux

package uring

import (
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// quantum is how long a loop runs before it lets the runtime's scheduler take a turn. A
// goroutine locked to its thread never advances the scheduler's tick; after 10 ms
// without a tick the runtime's monitor takes the processor away at every system call,
// which costs far more.
const quantum = 4 * time.Millisecond

// hushed is a quiet write that was submitted, with its place in the queue.
type hushed struct {
	data uint64
	at   uint32
}

// ended is a result that has no completion; err is nil for a write sent whole.
type ended struct {
	data uint64
	err  error
}

// Wait passes on what was submitted, waits, and reports; see backend.Backend. It enters
// the kernel once, or not at all if results are already there and nothing is to be
// passed on; more often only for more submissions than the queue holds, after an
// overflow of the completions, if the completions that came were no one's results, or
// for Ops that were canceled together (endTogether).
func (b *Backend) Wait(timeout time.Duration, done []backend.Completion) (int, error) {
	if b.closed {
		return 0, errClosed
	}
	if b.hosted {
		b.waker.hush()
	}
	if err := b.failed; err != nil {
		b.failed = nil
		return 0, err
	}
	b.canceled = 0
	n, err := b.wait(timeout, done)
	if err == nil {
		n, err = b.endTogether(n, done)
	}
	if err == nil && n == 0 && b.short && timeout != 0 {
		rest := shortWait
		if timeout > 0 {
			rest = min(rest, timeout)
		}
		time.Sleep(rest)
	}
	if err == nil && b.hosted {
		b.tell()
	}
	return n, err
}

func (b *Backend) wait(timeout time.Duration, done []backend.Completion) (int, error) {
	b.batch++
	b.verifier.left = len(b.verifier.list)
	b.takeBack()
	if err := b.enable(); err != nil {
		return 0, err
	}
	b.yield()
	b.promote()
	var until time.Duration
	if timeout > 0 {
		until = b.clock + timeout
	}
	n := b.collect(done)
	for {
		limit := timeout
		if n == 0 {
			b.promote()
			limit = b.verify(timeout)
			if n = b.report(done); n > 0 {
				continue
			}
		}
		whole := b.fill()
		if n > 0 || !whole {
			if b.ring.unsubmitted() > 0 {
				// Collect more completions even if there are some that found no room in
				// done: those may all belong to the same few handles.
				errno, err := b.enter(b.available() < int(b.ring.cqSize), false, 0)
				if err != nil {
					return n, err
				}
				n += b.collect(done[n:])
				if errno != 0 {
					return n, nil
				}
			}
			if whole || n == len(done) {
				return n, nil
			}
			continue
		}
		block := timeout != 0
		if block {
			block = b.waker.sleep()
		} else {
			b.waker.rise()
		}
		if !block && b.ring.unsubmitted() == 0 && !b.ring.pendingWork() {
			return 0, nil
		}
		errno, err := b.enter(true, block, limit)
		woken := block && b.waker.rise()
		n = b.collect(done)
		if err != nil {
			return n, err
		}
		if n > 0 || !block || woken || b.short || errno == syscall.EINTR {
			return n, nil
		}
		// The completions that came were no one's results, or verify's limit was reached.
		if timeout > 0 {
			if timeout = until - b.Now(); timeout <= 0 {
				return 0, nil
			}
		}
	}
}

// cancelsTogether is from how many canceled Ops on a Wait looks for more of them.
const cancelsTogether = 8

// endTogether adds the results of further Ops that were canceled together: the kernel ends
// some twenty of them for each time that it is entered, so that those of thousands of
// connections would take hundreds of Waits. Each round enters once, for as long as the
// last one ended several and the kernel says that it has more.
func (b *Backend) endTogether(n int, done []backend.Completion) (int, error) {
	for b.canceled >= cancelsTogether && n < len(done) && b.ring.hidden() {
		b.canceled = 0
		errno, err := b.enter(true, false, 0)
		if errno != 0 || err != nil {
			return n, err // the next Wait goes on
		}
		n += b.collect(done[n:])
	}
	return n, nil
}

// enter enters the ring. It returns an errno if the next Wait can get over it (a signal,
// the timeout, no memory for some seconds or no room for now), and an error if not. On a
// different thread from before, it moves the ring there instead and returns EAGAIN.
func (b *Backend) enter(collect, wait bool, timeout time.Duration) (syscall.Errno, error) {
	errno := b.ring.enter(collect, wait, timeout)
	switch errno {
	case 0, syscall.EINTR, syscall.ETIME, syscall.EAGAIN, syscall.EBUSY:
		b.short = false
		return errno, nil
	case syscall.EEXIST:
		return syscall.EAGAIN, b.move()
	case syscall.ENOMEM, syscall.ENOBUFS:
		// The kernel has taken nothing, and may have memory again soon.
		now := b.Now()
		if !b.short {
			b.short, b.shortSince = true, now
		}
		if now-b.shortSince <= shortMost {
			return syscall.EAGAIN, nil
		}
	}
	return errno, fmt.Errorf("uring: the kernel's io_uring fails; WEIR_BACKEND=epoll does without: io_uring_enter: %w", errno)
}

// How a loop survives a shortage of memory in the kernel: it tries again, for some
// seconds. A Wait that would have waited rests instead and returns, so that timers and
// posts from other goroutines still run; one that would not have waited does not rest.
const (
	shortMost = 3 * time.Second
	shortWait = 10 * time.Millisecond
)

// enable starts the ring on the calling thread, the first time.
func (b *Backend) enable() error {
	if b.enabled {
		return nil
	}
	if b.ring.flags&setupDisabled != 0 {
		if errno := b.ring.enable(); errno != 0 {
			return fmt.Errorf("uring: enabling the ring: %w", errno)
		}
	}
	b.enabled = true
	return nil
}

// yield lets other goroutines run once per quantum. It reads the clock only if the loop
// has not done so since the last Wait.
func (b *Backend) yield() {
	if b.clock == b.seen {
		b.Now()
	}
	b.seen = b.clock
	if b.clock-b.schedule >= quantum {
		runtime.Gosched()
		b.schedule = b.clock
	}
}

// takeBack ends the life of what the last Wait lent.
func (b *Backend) takeBack() {
	b.bufs.takeBack()
	if len(b.strays) > 0 && !b.moved {
		for _, bufs := range b.strays {
			bufs.free()
		}
		b.strays = b.strays[:0]
	}
	if len(b.lent) > 0 {
		const keep = 8
		for i, s := range b.lent {
			if len(b.slabs) < keep {
				b.slabs = append(b.slabs, s)
			}
			b.lent[i] = nil
		}
		b.lent = b.lent[:0]
	}
	if b.inbox != nil {
		b.inbox.Reset()
	}
	b.peerUsed = 0
}

// promote queues what is to be submitted once more. It is called only while nothing is
// lent: otherwise a receive that found no buffer would find none again, without end.
func (b *Backend) promote() {
	if len(b.later) > 0 {
		b.bufs.takeBack()
		b.queue = append(b.queue, b.later...)
		b.later = emptied(b.later)
	}
}

// fill turns what is queued into submission entries. It returns false when the
// submission queue has no room for all of it.
func (b *Backend) fill() bool {
	for i, data := range b.cancels {
		e := b.ring.next()
		if e == nil {
			b.cancels = append(b.cancels[:0], b.cancels[i:]...)
			return false
		}
		e.opcode, e.fd, e.addr, e.userData = opAsyncCancel, -1, data, dataIgnore
		if b.has&SkipSuccess != 0 {
			e.flags = sqeSkipSuccess
		}
		b.stats.Submissions++
	}
	b.cancels = b.cancels[:0]
	if !b.watched {
		e := b.ring.next()
		if e == nil {
			return false
		}
		pollEntry(e, b.waker.fd, pollIn)
		e.length = pollAddMulti
		e.userData = dataWake
		b.watched = true
		b.inFlight++
		b.stats.Submissions++
	}
	for ; b.head < len(b.queue); b.head++ {
		i, s := b.slots.find(b.queue[b.head])
		if s == nil {
			continue // canceled meanwhile
		}
		e := b.ring.next()
		if e == nil {
			return false
		}
		b.issue(e, i)
		s.op.State = flying
		b.inFlight++
		b.stats.Submissions++
	}
	b.queue, b.head = emptied(b.queue), 0
	return true
}

// collect reports the results that are ready.
func (b *Backend) collect(done []backend.Completion) int {
	if b.ring.overflown() {
		b.flood()
	}
	if len(b.hushed) > 0 {
		b.hush()
	}
	n := b.report(done)
	for n < len(done) && b.spilled < len(b.spill) {
		b.stats.Completions++
		b.room = 1
		if b.result(&b.spill[b.spilled], &done[n]) {
			n++
		}
		b.spilled++
	}
	if b.spilled < len(b.spill) {
		return n
	}
	b.spill, b.spilled = emptied(b.spill), 0
	if b.moved {
		b.rearm()
		n += b.report(done[n:])
	}
	ready := b.ring.ready()
	var taken uint32
	for taken < ready && n < len(done) {
		b.room = len(done) - n
		if b.result(b.ring.peek(taken), &done[n]) {
			n++
			n += b.more(done[n:])
		}
		taken++
	}
	b.ring.drop(taken)
	b.stats.Completions += uint64(taken)
	return n
}

// report hands out results that have no completion.
func (b *Backend) report(done []backend.Completion) int {
	n := 0
	kept := b.ended[:0]
	for _, r := range b.ended {
		_, s := b.slots.find(r.data)
		if n == len(done) || s.batch == b.batch {
			kept = append(kept, r)
			continue
		}
		op := s.op
		done[n] = backend.Completion{Op: op, Err: r.err}
		if r.err == nil && op.Kind == backend.Write {
			done[n].N = total(op.Vec)
		}
		b.release(op)
		n++
	}
	b.ended = kept
	return n
}

// available is how many completions can be examined.
func (b *Backend) available() int { return len(b.spill) - b.spilled + int(b.ring.ready()) }

// flood takes in completions that the kernel keeps outside the full queue, so that all
// of them can be seen.
func (b *Backend) flood() {
	b.stats.Overflows++
	for b.ring.overflown() {
		b.spillReady()
		if errno := b.ring.enter(true, false, 0); errno != 0 && errno != syscall.EINTR {
			return // the next enter reports it
		}
	}
}

// spillReady moves the contents of the completion queue to our own memory.
func (b *Backend) spillReady() {
	n := b.ring.ready()
	for i := range n {
		b.spill = append(b.spill, *b.ring.peek(i))
	}
	b.ring.drop(n)
}

// hush settles the quiet writes that were submitted. They never wait in the
// kernel: once it has taken one, either a completion says how it fell short or
// all of it was sent. So those without a completion are done.
func (b *Backend) hush() {
	if b.ring.overflown() {
		return // not all completions can be seen
	}
	for i := b.spilled; i < len(b.spill); i++ {
		b.heard(&b.spill[i])
	}
	for i := range b.ring.ready() {
		b.heard(b.ring.peek(i))
	}
	kept := b.hushed[:0]
	for _, h := range b.hushed {
		_, s := b.slots.find(h.data)
		switch {
		case s == nil || !s.quiet:
		case !b.ring.taken(h.at):
			kept = append(kept, h)
		default:
			b.inFlight--
			b.end(s.op, nil)
		}
	}
	b.hushed = kept
}

// heard records that a submission has a completion.
func (b *Backend) heard(e *cqe) {
	if _, s := b.slots.find(e.userData); s != nil {
		s.quiet = false
	}
}

// emptied returns list without its elements, or nil if it has grown too large to be
// worth keeping.
func emptied[T any](list []T) []T {
	const keep = 1024
	if cap(list) > keep {
		return nil
	}
	return list[:0]
}
