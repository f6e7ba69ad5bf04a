//go:build windows

package iocp

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/weir-io/weir/internal/backend"
)

// The keys of packets.
const (
	portKey  = 1 // of an operation
	wakeKey  = 2 // from Wake
	awaitKey = 3 // ends an Await
)

// Wait reports results; see backend.Backend. It asks the port once, or again if what came
// was no one's result, and then gives each handle of the queue one turn.
func (b *Backend) Wait(timeout time.Duration, done []backend.Completion) (int, error) {
	if b.closed {
		return 0, errClosed
	}
	b.lent, b.peered = 0, 0
	b.waits++
	var until time.Duration
	if timeout > 0 {
		if until = b.Now() + timeout; until < 0 {
			timeout = -1 // past the end of the clock
		}
	}
	left := timeout
	for {
		if len(b.refusals) > 0 || b.pending() || b.asider.due.Load() {
			left = 0
		}
		woken, err := b.collect(left)
		if err != nil {
			return 0, err
		}
		n := b.reportRefused(done)
		n += b.serveQueue(done[n:])
		if b.aside != nil && n < len(done) {
			k, err := b.waitAside(done[n:])
			if err != nil {
				return n, err
			}
			n += k
		}
		if n > 0 || woken || timeout == 0 {
			if b.pending() || len(b.refusals) > 0 {
				b.waker.prompt()
			}
			return n, nil
		}
		left = timeout
		if timeout > 0 {
			if left = until - b.Now(); left <= 0 {
				left, timeout = 0, 0 // what came at the same moment is still reported
			}
		}
	}
}

// pending reports whether handles wait for their turn.
func (b *Backend) pending() bool { return b.head < len(b.queue) }

// milliseconds is how long the port is asked to wait: rounded up, since a timer must never
// be early.
func milliseconds(d time.Duration) uint32 {
	switch {
	case d < 0:
		return windows.INFINITE
	case d == 0:
		return 0
	case d > (math.MaxUint32-2)*time.Millisecond:
		return math.MaxUint32 - 1
	default:
		return uint32((d + time.Millisecond - 1) / time.Millisecond)
	}
}

// collect takes packets from the port, and those that Await took. It waits for the first
// one as long as timeout says, and reports whether a Wake came.
func (b *Backend) collect(timeout time.Duration) (woken bool, err error) {
	if b.waker.takeIn(b) {
		timeout = 0
	}
	if timeout != 0 && !b.waker.sleep() {
		timeout, woken = 0, true
	}
	b.stats.Waits++
	n, errno := b.calls.dequeue(b.port, b.packets[:], milliseconds(timeout))
	woken = b.waker.rise() || woken
	if errno != 0 && errno != windows.WAIT_TIMEOUT {
		return woken, fmt.Errorf("iocp: GetQueuedCompletionStatusEx: %w", errno)
	}
	for i := range b.packets[:n] {
		b.completed(&b.packets[i])
	}
	return woken, nil
}

// completed takes what a packet says to the handle that it is about.
func (b *Backend) completed(p *packet) {
	if p.key != portKey || p.ov == nil {
		return
	}
	b.stats.Packets++
	sl := (*slot)(unsafe.Pointer(p.ov))
	p.ov = nil
	if !sl.used {
		b.stats.Late++ // of a call that said it was over
		return
	}
	b.inFlight--
	if h := sl.h; h == nil {
		b.stats.Late++
	} else {
		h.ended(b, sl)
		b.enqueue(h)
	}
	b.slots.drop(sl)
}

// ended records how the operation of sl ended.
func (h *handle) ended(b *Backend, sl *slot) {
	switch sl.kind {
	case backend.Read, backend.RecvFrom:
		h.rdSlot = nil
		h.readable = true
	case backend.Accept:
		h.rdSlot = nil
		h.acceptEnded(sl, h.failure(sl))
	case backend.Write, backend.SendTo:
		h.wrSlot = nil
		h.over = outcomeOf{true, int(sl.ov.InternalHigh), h.failure(sl)}
	case backend.Connect:
		h.wrSlot = nil
		h.over = outcomeOf{true, 0, h.failure(sl)}
	case backend.Hangup:
		h.hangSlot = nil
		if uint32(sl.ov.Internal) == 0 {
			h.heard(b, sl.aux.poll.events)
		}
	case backend.Ready:
		h.readySlot = nil
		if uint32(sl.ov.Internal) == 0 {
			h.readyEvents = sl.aux.poll.events
		}
	default:
	}
}

// failure is the error with which the operation of sl ended, or nil.
func (h *handle) failure(sl *slot) error {
	status := uint32(sl.ov.Internal)
	if status == 0 {
		return nil
	}
	if status == statusCancel {
		return backend.ErrCanceled
	}
	var n, flags uint32
	err := windows.WSAGetOverlappedResult(h.s, &sl.ov, &n, false, &flags)
	if err == nil || errors.Is(err, windows.ERROR_IO_INCOMPLETE) {
		err = windows.NTStatus(status).Errno()
	}
	if errors.Is(err, windows.ERROR_OPERATION_ABORTED) {
		return backend.ErrCanceled
	}
	return asErrno(err)
}

// enqueue gives h a turn in the next round.
func (b *Backend) enqueue(h *handle) {
	if h.queued || h.closed {
		return
	}
	h.queued = true
	if b.head > 0 && len(b.queue) == cap(b.queue) {
		n := copy(b.queue, b.queue[b.head:])
		clear(b.queue[n:])
		b.queue, b.head = b.queue[:n], 0
	}
	b.queue = append(b.queue, h)
	b.waker.prompt()
}

func (b *Backend) reportRefused(done []backend.Completion) int {
	n := copy(done, b.refusals)
	for i := range done[:n] {
		done[i].Op.State = idle
	}
	b.refusals = b.refusals[:copy(b.refusals, b.refusals[n:])]
	return n
}

// serveQueue gives each handle that is in the queue now one turn, as far as there is room
// for results and for what they lend.
func (b *Backend) serveQueue(done []backend.Completion) (n int) {
	for round := len(b.queue) - b.head; round > 0 && n < len(done) && b.room(); round-- {
		h := b.queue[b.head]
		b.queue[b.head] = nil
		if b.head++; b.head == len(b.queue) {
			b.queue, b.head = b.queue[:0], 0
		}
		h.queued = false
		if h.closed {
			continue
		}
		if h.served == b.waits {
			// Its results are in done, and their callbacks may change what holds.
			b.enqueue(h)
			continue
		}
		if k := h.serve(b, done[n:]); k > 0 {
			h.served = b.waits
			n += k
		}
	}
	return n
}

// room reports whether there is memory for one more read.
func (b *Backend) room() bool { return b.lent+readMost <= arenaSize }

// memory is where the next read goes.
func (b *Backend) memory() []byte {
	if b.arena == nil {
		b.arena = make([]byte, arenaSize)
	}
	return b.arena[b.lent : b.lent+readMost]
}

// serve reports what h has: conditions first, as a read may end them.
func (h *handle) serve(b *Backend, done []backend.Completion) (n int) {
	for _, at := range [...]**backend.Op{&h.ready, &h.rd, &h.wr, &h.hang} {
		op := *at
		if op == nil {
			continue
		}
		if n == len(done) {
			b.enqueue(h)
			return n
		}
		c := &done[n]
		if !h.try(b, op, c) {
			continue
		}
		n++
		// The end of a stream and errors are reported once: the caller decides what to do.
		if multi(op) && c.Err == nil && (op.Kind != backend.Read || c.N > 0) {
			c.More = true
			h.again(b, op)
			continue
		}
		*at = nil
		op.State = idle
	}
	return n
}

// again has a Multi Op that had a result waited for, or tried once more.
func (h *handle) again(b *Backend, op *backend.Op) {
	if op.Kind == backend.Read || op.Kind == backend.RecvFrom {
		if h.readable || h.rdSlot == nil && h.probe(b) != nil || h.readable {
			b.enqueue(h)
		}
		return
	}
	b.enqueue(h)
}

// try makes one attempt at op without waiting. It returns true with the result in *c, or
// false if op has to wait; something is then in flight for it.
func (h *handle) try(b *Backend, op *backend.Op, c *backend.Completion) bool {
	switch op.Kind {
	case backend.Read, backend.RecvFrom:
		for {
			if !h.readable && h.refusal == nil {
				if h.rdSlot != nil {
					return false
				}
				if err := h.probe(b); err != nil {
					*c = backend.Completion{Op: op, Err: err}
					return true
				}
				if !h.readable {
					return false
				}
			}
			if h.receive(b, op, c) {
				return true
			}
		}
	case backend.Accept:
		return h.serveAccept(b, op, c)
	case backend.Write, backend.SendTo, backend.Connect:
		if !h.over.done {
			return false
		}
		if op.Kind == backend.Connect {
			h.finishConnect(op, c)
		} else {
			h.finishWrite(b, op, c)
		}
		return true
	case backend.Hangup:
		return h.serveHangup(b, c)
	default:
		return h.serveReady(b, c)
	}
}
