//go:build linux

package uring

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// A ring with a single issuer refuses every other thread, even for an orderly close.
// Yet a loop may well be closed by a different goroutine from the one that ran it, and
// a host's goroutine may change threads between turns. The backend then moves to a new
// ring, which belongs to the new thread:
//
//  1. Completions that already exist are kept: any thread can read them. There are no
//     others: with deferred task work nothing is received, sent or accepted outside
//     Wait, except for plain files.
//  2. The old ring is closed, and its end is awaited, so that nothing it held can be
//     touched any more.
//  3. When the kept completions have been reported, everything that was in flight is
//     submitted again.
//
// This takes some tens of milliseconds and, for a moment, a few descriptors.

// deathPatience is how long the kernel may take to end a ring.
const deathPatience = 5 * time.Second

// death reports when the kernel is done with a closed ring: a registered file lives as
// long as the ring and the ring as long as anything in flight on it. So the ring is
// given one end of a pipe, and the other end then hangs up.
type death struct{ fd int }

// watch arranges to be notified of r's death.
func (d *death) watch(r *ring) error {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("uring: pipe: %w", err)
	}
	d.fd = ends[0]
	held := int32(ends[1])
	errno := r.register(registerFiles, unsafe.Pointer(&held), 1)
	_ = unix.Close(ends[1])
	if errno != 0 {
		d.forget()
		return fmt.Errorf("uring: registering a file: %w", errno)
	}
	return nil
}

// await waits for the death of the ring, which has been closed.
func (d *death) await() error {
	defer d.forget()
	until := time.Now().Add(deathPatience)
	for {
		left := time.Until(until)
		if left <= 0 {
			return fmt.Errorf("uring: the kernel does not end a closed ring: %w", syscall.ETIMEDOUT)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(d.fd)}}, int(left/time.Millisecond)+1)
		if n > 0 {
			return nil
		}
		if err != nil && err != syscall.EINTR {
			return err
		}
	}
}

func (d *death) forget() {
	_ = unix.Close(d.fd)
	d.fd = -1
}

// open makes a ring with its buffers.
func (b *Backend) open() error {
	c := &b.config
	r, err := newRing(c.Entries, c.Completions, b.has.setupFlags())
	if err != nil {
		return err
	}
	bufs, err := newBuffers(r, receiveGroup, c.Buffers, c.BufferSize, b.has&Incremental != 0)
	var d death
	if err == nil {
		if err = d.watch(r); err != nil {
			bufs.free()
		}
	}
	if err != nil {
		r.close()
		return err
	}
	b.ring, b.bufs, b.death, b.enabled, b.watched = r, bufs, d, false, false
	return nil
}

// move goes on with a new ring on the calling thread.
func (b *Backend) move() error {
	b.stats.Moves++
	b.spillReady()
	old, oldBufs, oldEnd, enters := b.ring, b.bufs, b.death, b.ring.enters
	if err := b.open(); err != nil {
		return fmt.Errorf("uring: moving to another thread: %w", err)
	}
	b.ring.enters = enters
	old.close()
	if err := oldEnd.await(); err != nil {
		return err
	}
	b.strays = append(b.strays, oldBufs)
	b.cancels, b.hushed = b.cancels[:0], b.hushed[:0]
	b.inFlight = 0
	for i := b.spilled; i < len(b.spill); i++ {
		e := &b.spill[i]
		if e.userData == dataWake {
			e.userData = dataIgnore
		}
		if e.userData != dataIgnore && e.flags&cqeMore == 0 {
			b.inFlight++
		}
	}
	b.moved = true
	return b.enable()
}

// rearm submits again what the old ring had in flight, once all its completions have
// been reported.
func (b *Backend) rearm() {
	b.moved = false
	for i := range b.slots.n {
		s := b.slots.at(i)
		switch {
		case s.orphan:
			b.slots.drop(i)
			continue
		case s.op == nil:
			continue
		}
		op := s.op
		s.quiet = false
		switch {
		case op.State == canceling:
			b.end(op, backend.ErrCanceled)
		case op.State == flying && b.class(op.Handle) == plainFile && !s.polling:
			// A worker thread may or may not have done the operation.
			b.end(op, syscall.ECANCELED)
		case op.State == flying:
			b.resubmit(op)
		}
	}
}

// filled finds the bytes of a completion, in the buffers of the ring that it came from:
// while a move is under way that is the old ring.
func (b *Backend) filled(e *cqe) []byte {
	bufs := b.bufs
	if b.moved {
		bufs = b.strays[len(b.strays)-1]
	}
	return bufs.filled(e.flags, int(max(e.res, 0)))
}
