//go:build linux

package uring

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// result turns one completion into a result in *c and returns true, or returns
// false where it is nobody's business: it only moved an Op on.
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
	if s.polling {
		return b.polled(s, e.res, errno, c)
	}
	switch op.Kind {
	case backend.Read:
		switch {
		case errno == syscall.ENOBUFS:
			b.stats.NoBuffer++
			return b.retry(op, c)
		case errno == syscall.EAGAIN && b.class(op.Handle) != socket:
			s.polling = true // a device that io_uring cannot wait for
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
			s.loud = true
			s.polling = b.class(op.Handle) != socket
		}
		errno = b.broken(op, c.N, errno)
	case backend.Accept:
		if errno == 0 {
			b.accepted(op, c)
		}
	default:
	}
	if errno == syscall.EINTR || errno == syscall.EAGAIN {
		return b.retry(op, c)
	}
	return b.done(op, errno, c)
}

// done completes a result and says whether there is one to report. The Op goes
// on where the kernel says so, and where it is Multi and the kernel ended it
// early or has no multishot: then it is submitted again.
//
// When Wait returns, every Op is idle or armed as its results say. So the last
// result of an Op that has another in the same batch is put off to the next
// Wait; it never carries bytes or a connection.
func (b *Backend) done(op *backend.Op, errno syscall.Errno, c *backend.Completion) bool {
	s := b.slots.at(op.Slot)
	goesOn := errno == 0 && op.Flags&backend.Multi != 0 &&
		(c.N > 0 || op.Kind == backend.Accept || op.Kind == backend.RecvFrom)
	switch {
	case errno == syscall.ECANCELED && s.lost:
		c.Err = syscall.EBADF
	case errno == syscall.ECANCELED:
		c.Err = backend.ErrCanceled
	case errno != 0:
		c.Err = errno
	case c.More:
	case goesOn && op.State != cancelling:
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
		// An error that leaves the submission armed is not known to happen; but
		// an error ends an Op, so nothing of it may remain.
		b.abandon(op)
		c.More = false
	default:
		b.release(op)
	}
	return true
}

// retry submits op once more, or ends it where it is being cancelled.
func (b *Backend) retry(op *backend.Op, c *backend.Completion) bool {
	if c.More {
		return false // it is still armed
	}
	if op.State != cancelling {
		b.resubmit(op)
		return false
	}
	return b.done(op, syscall.ECANCELED, c)
}

// abandon makes op idle although the kernel still holds its submission, which is
// cancelled.
func (b *Backend) abandon(op *backend.Op) {
	b.cancels = append(b.cancels, b.slots.data(op.Slot))
	b.slots.abandon(op.Slot)
	b.idle(op)
}

// received says in c where the bytes of a read are.
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
			// They held on the listener; here at worst the default stays.
			b.stats.Calls++
			_ = sys.SetOption(int(h), o.Option, o.Value)
		}
	}
}

// polled goes on after a poll: with the operation that it precedes, or with the
// result if the poll was all.
func (b *Backend) polled(s *slot, res int32, errno syscall.Errno, c *backend.Completion) bool {
	op := s.op
	c.N = 0
	switch errno {
	case 0:
	case syscall.EINTR, syscall.EAGAIN:
		return b.retry(op, c)
	default:
		return b.done(op, errno, c)
	}
	switch op.Kind {
	case backend.Read, backend.Write:
		if op.Kind == backend.Read {
			b.readNow(op, c)
		} else {
			b.writeNow(op, c)
		}
		if c.Err == backend.ErrAgain {
			return b.retry(op, c)
		}
		if c.Err != nil {
			b.release(op)
			return true
		}
		return b.done(op, 0, c)
	case backend.RecvFrom:
		if !b.recvFrom(op, c) {
			return b.retry(op, c)
		}
		if c.Err != nil || op.Buf != nil {
			b.release(op)
			return true
		}
		return b.done(op, 0, c)
	case backend.SendTo:
		if !b.sendTo(op, c) {
			return b.retry(op, c)
		}
		b.release(op)
		return true
	case backend.SpliceIn, backend.SpliceOut:
		if !b.splice(op, c) {
			return b.retry(op, c)
		}
		b.release(op)
		return true
	case backend.Hangup:
		if res&pollBad == 0 {
			return b.retry(op, c)
		}
		if res&unix.POLLERR != 0 {
			c.Err = b.pendingError(op)
		}
		if c.More {
			c.More = false
			b.abandon(op)
			return true
		}
		b.release(op)
		return true
	default: // Ready
	}
	ev := events(res) & (op.Events | backend.Failed)
	if ev == 0 {
		return b.retry(op, c)
	}
	c.N = int(ev)
	return b.done(op, 0, c)
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
