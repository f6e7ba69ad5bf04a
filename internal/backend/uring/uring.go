//go:build linux

// Package uring drives a loop by Linux's io_uring: operations are handed to the
// kernel in one queue and their results taken from another, both shared memory,
// with one system call a turn to pass on what was queued and to wait.
//
//	Submit ──▶ queue ──fill──▶ submission entries ─┐
//	                                               │ one io_uring_enter,
//	Wait ◀── reap ◀── completion entries ◀─────────┘ inside Wait
//
// The ring belongs to the thread of the first Wait (single issuer): there the
// kernel also does the work of completing, while that thread is inside Wait and
// at no other time (deferred task work), so nothing interrupts callbacks. Every
// later Wait and Close must come from the same thread.
//
// What the kernel is given stays alive and in place until the last completion for it:
// bytes by the Op, the rest by the slot (slots.go). A completion finds its Op by index
// and generation, so one that comes late finds none.
package uring

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// Config shapes a backend. The zero value is good for most.
type Config struct {
	// Entries is the length of the submission queue and Completions that of the
	// completion queue. Work that does not fit is passed on in several steps. Default
	// 256 and 4096.
	Entries, Completions uint32
	// Buffers is how many buffers of BufferSize bytes receives share; a power of two,
	// at most 32768. It bounds what one turn can receive: bytes that find no buffer
	// stay in their socket until the next. Default 16 of 64 KiB if the kernel can fill
	// them piece by piece, else 128 of 16 KiB.
	Buffers, BufferSize int
	// Without lists features not to use even if the kernel has them.
	Without Features
}

// Stats counts what a backend has done since it was made.
type Stats struct {
	Enters      uint64 // io_uring_enter
	Calls       uint64 // other system calls for Ops (not for Open, Shut and options)
	Submissions uint64
	Completions uint64 // entries taken from the completion queue
	NoBuffer    uint64 // receives that found no buffer and were armed again
	Rearmed     uint64 // Multi Ops that the kernel ended and that were armed again
	Overflows   uint64 // times the completion queue was found to have overflowed
	Late        uint64 // completions whose Op was gone
	Moves       uint64 // to another thread
}

// Backend is an io_uring and everything in flight on it.
type Backend struct {
	ring     *ring
	bufs     *buffers
	death    death // of ring
	config   Config
	has      Features
	probed   []string
	start    time.Time
	clock    time.Duration // Now's last value
	enabled  bool
	closed   bool
	hosted   bool
	failed   error         // found outside Wait, for the next one to return
	schedule time.Duration // when the runtime's scheduler last had its turn
	seen     time.Duration // clock at the last Wait

	slots    slots
	queue    []uint64 // user_data of what the next Wait submits, from head on
	head     int
	later    []uint64 // user_data of what is to be submitted once more
	cancels  []uint64 // user_data of what is to be canceled then
	hushed   []hushed
	ended    []ended
	batch    uint32 // counts Waits
	canceled int    // Ops whose cancellation the last enter has ended: see endTogether
	inFlight int    // submissions whose last completion is still to come
	watched  bool   // the wake-up descriptor is polled by the ring

	short      bool          // the kernel had no memory at the last enter
	shortSince time.Duration // when that began; every enter since has failed so

	spill   []cqe // completions taken out of the queue, from spilled on
	spilled int
	moved   bool       // the spilled completions are the last of an older ring
	strays  []*buffers // of older rings, lent until the next Wait

	handles  []handle // the open ones, by number
	details  map[backend.Handle]*detail
	slabs    [][]byte
	taken    batch
	room     int         // for results, the one being made included
	inbox    *sys.Inbox  // nil until a datagram socket is read
	outbox   *sys.Outbox // nil until many are sent
	lent     [][]byte    // slabs lent until the next Wait
	peers    []*backend.Addr
	peerUsed int

	vector   sys.Vector
	sockaddr sys.Sockaddr
	errors   sys.ErrorReader
	verifier verifier
	waker    waker
	stats    Stats
}

// Completions that belong to no slot have one of these user_data, whose
// generation is 0.
const (
	dataIgnore uint64 = iota // a cancellation's own result
	dataWake                 // the wake-up descriptor
)

const (
	receiveGroup = 1
	slabSize     = 64 << 10
)

var errClosed = fmt.Errorf("uring: backend is closed: %w", net.ErrClosed)

// New makes a backend, or reports why the system offers no io_uring: the error is then
// syscall.ENOSYS (too old or left out), EPERM (forbidden) or ENOMEM (locked memory),
// and another backend can serve.
func New(c Config) (*Backend, error) {
	has, err := probe()
	if err != nil {
		return nil, err
	}
	b := &Backend{has: has &^ c.Without, start: time.Now(), batch: 1, details: make(map[backend.Handle]*detail)}
	b.slots.free = noSlot
	if c.Entries == 0 {
		c.Entries = 256
	}
	if c.Completions == 0 {
		c.Completions = 4096
	}
	if c.Buffers == 0 {
		c.Buffers, c.BufferSize = 16, 64<<10
		if b.has&Incremental == 0 {
			c.Buffers, c.BufferSize = 128, 16<<10
		}
	}
	b.config = c
	if err = b.open(); err != nil {
		return nil, err
	}
	if err = b.waker.open(); err != nil {
		b.waker.close()
		b.ring.close()
		b.death.forget()
		b.bufs.free()
		return nil, err
	}
	b.probed = describe(has, c.Without, b.ring)
	return b, nil
}

// Now is the time since New.
func (b *Backend) Now() time.Duration {
	b.clock = time.Since(b.start)
	return b.clock
}

// Wall is the wall clock when New was called.
func (b *Backend) Wall() time.Time { return b.start.Round(0) }

// Caps says what was probed. Handles are descriptors. PollFD is an eventfd that
// the ring writes to once there is a host.
func (b *Backend) Caps() backend.Caps {
	return backend.Caps{
		Name: "uring", PollFD: b.waker.host, Thread: b.has&SingleIssuer != 0,
		Descriptors: true, PeerErrors: true, Splice: true, Probed: b.probed,
		Info: backend.InfoLocal | backend.InfoTraffic | backend.InfoDropped | backend.InfoTime,
	}
}

// Stats returns the counts so far. It belongs to the loop's goroutine.
func (b *Backend) Stats() Stats {
	s := b.stats
	s.Enters = b.ring.enters
	return s
}

// Wake makes a Wait return; see backend.Backend.
func (b *Backend) Wake() { b.waker.wake() }

// Submit queues op for the next Wait, which hands it to the kernel with everything
// else; see backend.Backend. Ops that need no waiting or cannot be armed finish here;
// if an Op of the same kind is already armed on the handle, a second one ends with
// EBUSY. A Ready Op may name a descriptor that was never adopted and stays its owner's.
func (b *Backend) Submit(op *backend.Op, c *backend.Completion) bool {
	if op.State != 0 {
		return false // the caller's mistake; the first submission stands
	}
	switch errno := b.check(op); errno {
	case 0:
	case unsupported:
		return b.refuse(op, c, backend.ErrUnsupported)
	default:
		return b.refuse(op, c, errno)
	}
	poll := false
	switch op.Kind {
	case backend.Read:
		if op.Flags&(backend.Now|backend.Multi) == backend.Now {
			b.readNow(op, c)
			return true
		}
		poll = b.class(op.Handle) == polled
	case backend.Write:
		switch {
		case total(op.Vec) == 0:
			*c = backend.Completion{Op: op}
			return true
		case op.Flags&backend.Now != 0:
			b.writeNow(op, c)
			return true
		case b.class(op.Handle) == plainFile:
			// The ring continues by itself if a disk took less than everything. If that
			// fails, it reports what was written but does not move the file's position,
			// and the next write would overwrite it.
			if b.writeNow(op, c); c.Err != backend.ErrAgain {
				return true
			}
		}
		poll = b.class(op.Handle) == polled
	case backend.RecvFrom:
		if op.Flags&(backend.Now|backend.Multi) == backend.Now {
			if !b.recvFrom(op, c, 1) {
				*c = backend.Completion{Op: op, Err: backend.ErrAgain}
			}
			return true
		}
		poll = true
	case backend.SendTo:
		switch {
		case b.sendTo(op, c):
			return true
		case op.Flags&backend.Now != 0:
			*c = backend.Completion{Op: op, Err: backend.ErrAgain}
			return true
		}
		poll = true
	case backend.SpliceIn, backend.SpliceOut:
		if b.splice(op, c) {
			return true
		}
		if op.Flags&backend.Now != 0 {
			*c = backend.Completion{Op: op, Err: backend.ErrAgain}
			return true
		}
		poll = true
	case backend.Accept:
	case backend.Ready, backend.Hangup:
		poll = true
		if b.class(op.Handle) == notOpen {
			if err := b.verifier.add(op.Handle); err != nil {
				return b.refuse(op, c, err)
			}
		}
	case backend.Connect:
		a := b.slots.newAux()
		if done, err := b.connect(&a.addr, op); done {
			b.slots.keepAux(a)
			if err != nil {
				return b.refuse(op, c, err)
			}
			*c = backend.Completion{Op: op}
			return true
		}
		var s *slot
		op.Slot, s = b.slots.take(op)
		s.aux = a
		b.arm(op)
		return false
	}
	var s *slot
	op.Slot, s = b.slots.take(op)
	s.polling = poll
	b.arm(op)
	return false
}

// unsupported stands for backend.ErrUnsupported.
const unsupported = syscall.ENOTSUP

// check finds what is wrong with op, before anything is done.
func (b *Backend) check(op *backend.Op) syscall.Errno {
	bit := place(op.Kind)
	switch {
	case b.closed, b.class(op.Handle) == notOpen && (op.Kind != backend.Ready || !isOpen(op.Handle)):
		return syscall.EBADF
	case bit == 0, (op.Kind == backend.Read || op.Kind == backend.RecvFrom) && op.Buf != nil && len(op.Buf) == 0,
		op.Kind == backend.SendTo && op.Addr == nil && op.Packets == nil:
		return syscall.EINVAL
	case b.handle(op.Handle).busy&bit != 0:
		return syscall.EBUSY
	}
	switch op.Kind {
	case backend.RecvFrom, backend.SendTo:
		if b.class(op.Handle) != socket {
			return syscall.ENOTSOCK
		}
	case backend.Connect, backend.Accept:
		if op.Kind == backend.Connect && op.Addr == nil {
			return syscall.EINVAL
		}
		if b.class(op.Handle) != socket {
			return syscall.ENOTSOCK
		}
	case backend.SpliceIn, backend.SpliceOut:
		if d := b.detail(op.Handle); d != nil && d.adopted.Blocks {
			return unsupported // splice(2) would wait in the socket
		}
	default:
	}
	return 0
}

// refuse ends an Op that was not armed: at once, or by the next Wait if it is Multi.
func (b *Backend) refuse(op *backend.Op, c *backend.Completion, err error) bool {
	if op.Flags&backend.Multi == 0 || b.closed {
		*c = backend.Completion{Op: op, Err: err}
		return true
	}
	var s *slot
	op.Slot, s = b.slots.take(op)
	s.refused = true
	b.end(op, err)
	b.tell()
	return false
}

// end makes the next Wait report op's last result, err or success.
func (b *Backend) end(op *backend.Op, err error) {
	op.State = settled
	b.ended = append(b.ended, ended{b.slots.data(op.Slot), err})
}

// arm queues op.
func (b *Backend) arm(op *backend.Op) {
	b.handle(op.Handle).busy |= place(op.Kind)
	op.State = queued
	b.queue = append(b.queue, b.slots.data(op.Slot))
	b.tell()
}

// resubmit queues op once more, after a Wait found that it is needed.
func (b *Backend) resubmit(op *backend.Op) {
	op.State = queued
	b.slots.at(op.Slot).parked = false
	b.later = append(b.later, b.slots.data(op.Slot))
}

// Cancel ends op; see backend.Backend. An Op that the kernel does not have yet is idle
// at once; for any other the kernel's completion is awaited, since its bytes may
// already have moved.
func (b *Backend) Cancel(op *backend.Op) bool {
	switch op.State {
	case queued:
		if b.slots.at(op.Slot).batch == b.batch {
			// The last Wait has handed out results of this Op that may not all have
			// been delivered: it is not idle before they are.
			b.end(op, backend.ErrCanceled)
			b.tell()
			return false
		}
		b.release(op)
		return true
	case flying:
		if b.slots.at(op.Slot).parked {
			b.release(op)
			return true
		}
		op.State = canceling
		b.cancels = append(b.cancels, b.slots.data(op.Slot))
		b.tell()
	}
	return false
}

// release makes op idle and its slot free.
func (b *Backend) release(op *backend.Op) {
	s := b.slots.at(op.Slot)
	if s.aux != nil && s.aux.slab != nil {
		b.slabs = append(b.slabs, s.aux.slab)
	}
	refused := s.refused
	b.slots.drop(op.Slot)
	if refused {
		op.State = 0 // another Op has its place
		return
	}
	b.idle(op)
}

// idle makes op idle.
func (b *Backend) idle(op *backend.Op) {
	b.handle(op.Handle).busy &^= place(op.Kind)
	op.State = 0
	if op.Kind == backend.Ready && b.class(op.Handle) == notOpen {
		b.verifier.remove(op.Handle)
	}
}

// Close cancels what is in flight, waits until the kernel is done with it, and
// closes every handle that is still open.
func (b *Backend) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	b.waker.close()
	err := b.drain()
	for i := range b.slots.n {
		if op := b.slots.at(i).op; op != nil {
			op.State = 0
		}
	}
	err = errors.Join(err, b.closeHandles())
	b.ring.close()
	if b.inFlight > 0 {
		// Another thread's ring, or one that does not drain: there is another way to
		// await its end.
		if e := b.death.await(); e != nil {
			return errors.Join(err, e) // the kernel may still use the memory
		}
	} else {
		b.death.forget()
	}
	for _, bufs := range append(b.strays, b.bufs) {
		bufs.free()
	}
	b.slots, b.strays = slots{free: noSlot}, nil
	return err
}

// drain ends what is in flight, as far as the calling thread may.
func (b *Backend) drain() error {
	until := b.Now() + deathPatience
	for asked := false; ; asked = true {
		b.spillReady()
		b.hush()
		for ; b.spilled < len(b.spill); b.spilled++ {
			b.discard(&b.spill[b.spilled])
		}
		if !b.enabled || b.inFlight == 0 || b.Now() > until {
			return nil
		}
		if !asked {
			if e := b.ring.next(); e != nil {
				e.opcode, e.fd = opAsyncCancel, -1
				e.opFlags = cancelAll | cancelAny
				e.userData = dataIgnore
			}
		}
		switch errno := b.ring.enter(true, true, 100*time.Millisecond); errno {
		case 0, syscall.EINTR, syscall.EBUSY, syscall.EAGAIN, syscall.ETIME:
		case syscall.EEXIST:
			return nil
		default:
			return fmt.Errorf("uring: closing: %w", errno)
		}
	}
}

// discard records a completion that is reported to no one.
func (b *Backend) discard(e *cqe) {
	if e.userData == dataIgnore {
		return
	}
	if e.flags&cqeMore == 0 {
		b.inFlight--
	}
	_, s := b.slots.find(e.userData)
	if e.res >= 0 && (s != nil && s.op.Kind == backend.Accept || b.slots.accepting(e.userData)) {
		sys.Close(int(e.res))
	}
}
