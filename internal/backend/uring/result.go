//go:build linux

package uring

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// result turns one completion into a result in *c and returns true, or returns false if
// there is nothing to report because it only moved an Op on.
func (b *Backend) result(e *cqe, c *backend.Completion) bool {
	more := e.flags&cqeMore != 0
	if e.userData == dataIgnore {
		return false
	}
	if !more {
		b.inFlight--
	}
	if e.userData == dataWake {
		b.watched = more
		return false
	}
	var data []byte
	if e.flags&cqeBuffer != 0 {
		data = b.filled(e)
	}
	_, s := b.slots.find(e.userData)
	if s == nil {
		b.stats.Late++
		if e.res >= 0 && b.slots.accepting(e.userData) {
			sys.Reset(int(e.res)) // to a listener that was closed
		}
		if !more {
			b.slots.bury(e.userData)
		}
		return false
	}
	op := s.op
	*c = backend.Completion{Op: op, More: more}
	var errno syscall.Errno
	if e.res < 0 {
		errno = syscall.Errno(-e.res)
	} else {
		c.N = int(e.res)
	}
	if errno == syscall.ECANCELED && op.State == flying && op.Kind != backend.Connect {
		// We did not cancel it: the thread that submitted it has ended.
		return b.retry(op, c)
	}
	if s.polling {
		return b.polled(s, e.res, errno, c)
	}
	switch op.Kind {
	case backend.Read:
		switch {
		case errno == syscall.ENOBUFS:
			b.stats.NoBuffer++
			return b.retry(op, c)
		case errno == syscall.EAGAIN:
			// Either a device that io_uring cannot wait for, or a socket with an urgent
			// byte: the kernel takes that for something to receive, tries many times
			// and gives up.
			s.polling = true
			s.patient = b.class(op.Handle) == socket
			return b.retry(op, c)
		}
		errno = b.broken(op, c.N, errno)
		b.received(s, data, c)
		if h := b.handle(op.Handle); c.N >= bulk {
			h.busy |= bulky
		} else if c.N > 0 {
			h.busy &^= bulky
		}
	case backend.Write:
		if errno == syscall.EAGAIN {
			s.polling = true
		}
		errno = b.broken(op, c.N, errno)
	case backend.Accept:
		if errno == 0 {
			b.accepted(op, c)
		}
	case backend.Connect:
		if errno == syscall.EALREADY && op.State == flying {
			// The kernel asks the socket again once its poll says something, and of
			// AF_VSOCK that may come too early.
			s.polling = true
			return b.retry(op, c)
		}
		if errno == syscall.EISCONN {
			errno = 0 // Open has begun it: see backend.SCTP
		}
	default:
	}
	if errno == syscall.EINTR || errno == syscall.EAGAIN {
		return b.retry(op, c)
	}
	return b.done(op, errno, c)
}

// done completes a result and says whether there is one to report. The Op goes on if
// the kernel says so. If it is Multi and the kernel ended it early or has no multishot,
// it is submitted again.
//
// When Wait returns, every Op is idle or armed as its results say. So if an Op already
// has a result in the same batch, its last result is put off to the next Wait; it never
// carries bytes or a connection.
func (b *Backend) done(op *backend.Op, errno syscall.Errno, c *backend.Completion) bool {
	s := b.slots.at(op.Slot)
	goesOn := errno == 0 && op.Flags&backend.Multi != 0 &&
		(c.N > 0 || op.Kind == backend.Accept || op.Kind == backend.RecvFrom)
	switch {
	case errno == syscall.ECANCELED && s.lost:
		c.Err = syscall.EBADF
	case errno == syscall.ECANCELED:
		c.Err = backend.ErrCanceled
		b.canceled++
	case errno != 0:
		c.Err = errno
	case c.More:
	case goesOn && op.State != canceling:
		c.More = true
		b.stats.Rearmed++
		b.resubmit(op)
	case goesOn && s.batch == b.batch:
		c.More = true
		b.end(op, backend.ErrCanceled)
	}
	switch {
	case c.More && c.Err == nil:
		s.batch = b.batch
		return true
	case s.batch == b.batch:
		b.end(op, c.Err)
		return false
	case c.More:
		// An error that leaves the submission armed is not known to happen; but an
		// error ends an Op, so no part of it may remain.
		b.abandon(op)
		c.More = false
	default:
		b.release(op)
	}
	return true
}

// retry submits op once more, or ends it if it is being canceled.
func (b *Backend) retry(op *backend.Op, c *backend.Completion) bool {
	if c.More {
		return false // it is still armed
	}
	if op.State != canceling {
		b.resubmit(op)
		return false
	}
	return b.done(op, syscall.ECANCELED, c)
}

// disarm gives op another slot: the kernel still holds the poll of the old one, which
// is now canceled.
func (b *Backend) disarm(op *backend.Op) *slot {
	old := b.slots.at(op.Slot)
	b.cancels = append(b.cancels, b.slots.data(op.Slot))
	b.slots.abandon(op.Slot)
	var s *slot
	op.Slot, s = b.slots.take(op)
	s.polling, s.lost, s.batch = old.polling, old.lost, old.batch
	return s
}

// abandon makes op idle although the kernel still holds its submission, which is now
// canceled.
func (b *Backend) abandon(op *backend.Op) {
	b.cancels = append(b.cancels, b.slots.data(op.Slot))
	b.slots.abandon(op.Slot)
	b.idle(op)
}

// received records in c where the bytes of a read are.
func (b *Backend) received(s *slot, data []byte, c *backend.Completion) {
	switch {
	case c.N == 0:
	case s.op.Buf != nil:
		c.Buf = s.op.Buf[:c.N]
	case data != nil:
		c.Buf = data
	case s.aux != nil && s.aux.slab != nil:
		c.Buf = s.aux.slab[:c.N:c.N]
		b.lent = append(b.lent, s.aux.slab)
		s.aux.slab = nil
	}
}

// accepted takes over a new connection and finds out its peer.
func (b *Backend) accepted(op *backend.Op, c *backend.Completion) {
	h := b.opened(c.N, socket, nil)
	if b.peerUsed == len(b.peers) {
		b.peers = append(b.peers, new(backend.Addr))
	}
	c.Peer = b.peers[b.peerUsed]
	b.peerUsed++
	b.peerOf(h, op.Handle, c.Peer)
	if d := b.detail(op.Handle); d != nil {
		for _, o := range d.options {
			// The options were valid on the listener; here at worst the default stays.
			b.stats.Calls++
			_ = sys.SetOption(int(h), o.Option, o.Value)
		}
	}
}

// polled continues after a poll: with the operation that it precedes, or with the
// result if the poll was all there was to do.
func (b *Backend) polled(s *slot, res int32, errno syscall.Errno, c *backend.Completion) bool {
	op := s.op
	c.N = 0
	switch errno {
	case 0:
	case syscall.EINTR, syscall.EAGAIN:
		return b.retry(op, c)
	case syscall.EINVAL:
		if op.Kind == backend.Hangup && op.State == flying {
			s.parked = true
			return false
		}
		return b.done(op, errno, c)
	default:
		return b.done(op, errno, c)
	}
	armed := c.More
	c.More = false
	if op.Kind == backend.Hangup {
		return b.hungUp(op, res, armed, c)
	}
	var ready bool
	switch op.Kind {
	case backend.Read:
		b.readNow(op, c)
		ready = c.Err != backend.ErrAgain
	case backend.Write:
		b.writeNow(op, c)
		ready = c.Err != backend.ErrAgain
	case backend.RecvFrom:
		most := 1
		if op.Flags&backend.Multi != 0 && op.Buf == nil && op.State == flying {
			most = b.room // the next of them are added by more
		}
		ready = b.recvFrom(op, c, most)
	case backend.SendTo:
		ready = b.sendTo(op, c)
	case backend.SpliceIn, backend.SpliceOut:
		ready = b.splice(op, c)
	case backend.Connect:
		ready = b.connected(op, c)
	default: // Ready
		c.N = int(events(res) & (op.Events | backend.Failed))
		ready = c.N != 0
	}
	switch {
	case !ready && armed:
		return false // the next change is reported
	case !ready:
		// What the poll reported is of no use to op and may be reported again at once.
		s.patient = true
		return b.retry(op, c)
	case armed:
		s = b.disarm(op)
	}
	s.patient = false
	s.polling = s.polling && (op.Kind != backend.Read || b.class(op.Handle) != socket)
	if c.Err != nil {
		b.release(op)
		return true
	}
	return b.done(op, 0, c)
}

// hungUp takes a result of a Hangup's poll, which may or may not still be armed.
func (b *Backend) hungUp(op *backend.Op, res int32, armed bool, c *backend.Completion) bool {
	switch {
	case res&pollBad == 0 && armed:
		return false
	case res&pollBad == 0:
		return b.retry(op, c)
	}
	if res&unix.POLLERR != 0 {
		c.Err = b.pendingError(op)
	}
	if armed {
		b.abandon(op)
	} else {
		b.release(op)
	}
	return true
}

// events translates what a poll reports. An error or a hang-up also makes the
// handle readable and writable: neither would wait.
func events(res int32) backend.Events {
	var ev backend.Events
	if res&pollIn != 0 {
		ev |= backend.Readable
	}
	if res&pollOut != 0 {
		ev |= backend.Writable
	}
	if res&pollBad != 0 {
		ev |= backend.Readable | backend.Writable | backend.Failed
	}
	return ev
}
