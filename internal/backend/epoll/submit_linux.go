package epoll

import (
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
	"golang.org/x/sys/unix"
)

// failure is the last result of an Op that is known before any Wait.
type failure struct {
	op  *backend.Op
	err error
}

// Submit arms op. Writes, connects, SpliceOut, and reads with Now are tried at once. A
// second Op of a kind that is already armed on the handle ends with EBUSY; the first
// one stays. A Ready Op may name a descriptor that was never adopted: it is watched,
// level-triggered, until the Op is canceled or the descriptor forgotten, and stays its
// owner's. The pipe of a splice need not be adopted either; a splice that the pipe
// holds up, full or empty, ends with ErrAgain. Multi takes precedence over Now.
func (b *Backend) Submit(op *backend.Op, c *backend.Completion) bool {
	if op.State != idle {
		return false // the caller's mistake; the first submission stays
	}
	s := b.table.find(op.Handle)
	if s == nil && op.Kind == backend.Ready && op.Handle >= 0 && b.ep >= 0 {
		s = b.startRaw(int32(op.Handle))
	}
	if s == nil || s.flags&lost != 0 {
		return b.refuse(op, c, unix.EBADF)
	}
	place := s.place(op.Kind)
	if place == nil || s.flags&raw != 0 && op.Kind != backend.Ready {
		return b.refuse(op, c, unix.EINVAL)
	}
	if *place != nil {
		return b.refuse(op, c, unix.EBUSY)
	}
	if op.Kind == backend.RecvFrom && op.Flags&(backend.Now|backend.Multi) == backend.Now {
		b.recvNow(s, op, c)
		return true
	}
	n, err, finished := b.begin(s, op)
	if finished {
		if err != nil {
			return b.refuse(op, c, err)
		}
		*c = backend.Completion{Op: op, N: n, Err: err}
		if op.Kind == backend.Read && n > 0 {
			c.Buf = b.filled(op, n)
		}
		return true
	}
	*place = op
	op.State = armed
	if place == &s.rd {
		s.flags &^= full
	}
	if op.Kind == backend.Ready {
		b.levelled(s)
	}
	if errno := b.watch(s); errno != 0 {
		*place = nil
		op.State = idle
		if s.flags&raw != 0 && s.idle() {
			b.drop(s)
		} else if errno == unix.EBADF {
			b.lose(s)
		}
		return b.refuse(op, c, errno)
	}
	if s.due() {
		b.enqueue(s)
	}
	return false
}

// begin tries what need not wait for the kernel to report readiness.
func (b *Backend) begin(s *slot, op *backend.Op) (n int, err error, finished bool) {
	var errno syscall.Errno
	switch op.Kind {
	case backend.Read:
		if op.Buf != nil && len(op.Buf) == 0 {
			return 0, unix.EINVAL, true // its result would look like the end
		}
		if op.Flags&(backend.Now|backend.Multi) != backend.Now {
			return 0, nil, false
		}
		n, errno = b.read(s, b.buffer(op, readSize))
	case backend.Write:
		n, errno = b.write(s, op)
	case backend.RecvFrom:
		if op.Buf != nil && len(op.Buf) == 0 {
			return 0, unix.EINVAL, true
		}
		return 0, nil, false
	case backend.SendTo:
		n, errno = b.sendTo(s, op)
	case backend.Connect:
		errno = b.connect(s, op)
		if errno == unix.EINPROGRESS {
			return 0, nil, false
		}
		if errno != 0 {
			return 0, errno, true
		}
	case backend.SpliceIn, backend.SpliceOut:
		if s.flags&blocks != 0 {
			return 0, backend.ErrUnsupported, true
		}
		if op.Kind == backend.SpliceIn && op.Flags&backend.Now == 0 {
			return 0, nil, false
		}
		var stuck bool
		if n, errno, stuck = b.splice(s, op); stuck {
			return 0, backend.ErrAgain, true
		}
	default:
		return 0, nil, false
	}
	switch {
	case errno == 0:
		return n, nil, true
	case errno != unix.EAGAIN:
		return 0, errno, true
	case op.Flags&backend.Now != 0:
		return 0, backend.ErrAgain, true
	}
	return 0, nil, false
}

// refuse ends an Op that was not armed: at once, or by the next Wait if it is Multi.
func (b *Backend) refuse(op *backend.Op, c *backend.Completion, err error) bool {
	if op.Flags&backend.Multi == 0 {
		*c = backend.Completion{Op: op, Err: err}
		return true
	}
	b.fail(op, err)
	return false
}

func (b *Backend) fail(op *backend.Op, err error) {
	op.State = queued
	b.failed = append(b.failed, failure{op, err})
	b.tell()
}

func (b *Backend) enqueue(s *slot) {
	b.ready.push(s)
	b.tell()
}

// pending reports whether a Wait would have something to do without asking the
// kernel.
func (b *Backend) pending() bool { return len(b.failed) > 0 || !b.ready.empty() }

// tell makes the descriptor that a host watches readable.
func (b *Backend) tell() {
	if b.hosted && !b.told {
		b.told = true
		b.wake.write()
	}
}

// Cancel makes op idle; nothing is ever under way in the kernel, so it always succeeds
// if op was armed.
func (b *Backend) Cancel(op *backend.Op) bool {
	switch op.State {
	case armed:
		s := b.table.find(op.Handle)
		if s == nil {
			return false
		}
		place := s.place(op.Kind)
		if *place != op {
			return false
		}
		*place = nil
		op.State = idle
		if s.flags&raw != 0 && s.idle() {
			// Its owner may close the descriptor next, and the kernel must not
			// know it any more.
			b.drop(s)
		}
		return true
	case queued:
		for i := range b.failed {
			if b.failed[i].op == op {
				b.failed = append(b.failed[:i], b.failed[i+1:]...)
				op.State = idle
				return true
			}
		}
	}
	return false
}

// startRaw makes a slot for a descriptor that is merely watched.
func (b *Backend) startRaw(fd int32) *slot {
	s := b.table.grow(fd)
	s.start(sys.Stream, raw|foreign)
	s.more = &extra{}
	b.verify.add(s)
	return s
}

// levelled turns s to level-triggering: others read a descriptor that is merely
// watched, and they need not read until EAGAIN.
func (b *Backend) levelled(s *slot) {
	if s.flags&edge == 0 {
		return
	}
	b.unwatch(s)
	s.flags &^= edge
	s.ready = 0
}
