//go:build linux

package uring

import (
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// Operations done by ordinary system calls: those that must not wait, for which the
// ring would only be a detour, and splices, which the ring would hand to a worker
// thread each time; they are polled for and then done here.

// readNow reads without waiting.
func (b *Backend) readNow(op *backend.Op, c *backend.Completion) {
	*c = backend.Completion{Op: op}
	buf := op.Buf
	if buf == nil {
		buf = b.slab()
		b.lent = append(b.lent, buf)
	}
	b.stats.Calls++
	var n int
	var errno syscall.Errno
	switch b.class(op.Handle) {
	case notOpen:
		errno = syscall.EBADF
	case socket:
		n, errno = sys.Recv(int(op.Handle), buf)
	case polled:
		if sys.Poll(int(op.Handle), pollIn) == 0 {
			errno = syscall.EAGAIN
			break
		}
		n, errno = sys.ReadSlow(int(op.Handle), buf)
	case stream:
		n, errno = sys.Read(int(op.Handle), buf)
	case plainFile:
		n, errno = sys.ReadSlow(int(op.Handle), buf)
	}
	if errno = b.broken(op, n, errno); errno != 0 {
		c.Err = nowError(errno)
		return
	}
	if c.N = n; n > 0 {
		c.Buf = buf[:n:n]
	}
}

// writeNow writes without waiting: as many pieces as one call takes.
func (b *Backend) writeNow(op *backend.Op, c *backend.Completion) {
	*c = backend.Completion{Op: op}
	b.stats.Calls++
	var errno syscall.Errno
	switch b.class(op.Handle) {
	case notOpen:
		errno = syscall.EBADF
	case socket:
		c.N, errno = sys.SendVec(int(op.Handle), op.Vec, &b.vector)
	case stream:
		c.N, errno = sys.WriteVec(int(op.Handle), op.Vec, &b.vector, false)
	case polled:
		if sys.Poll(int(op.Handle), pollOut) == 0 {
			errno = syscall.EAGAIN
			break
		}
		// As much as a writable pipe takes at once.
		p := firstPiece(op.Vec)
		c.N, errno = sys.WriteSlow(int(op.Handle), p[:min(len(p), sys.PipeAtomic)])
	case plainFile:
		c.N, errno = sys.WriteVec(int(op.Handle), op.Vec, &b.vector, true)
	}
	if errno = b.broken(op, c.N, errno); errno != 0 {
		c.N, c.Err = 0, nowError(errno)
	}
}

// firstPiece is the first piece of vec that is not empty.
func firstPiece(vec [][]byte) []byte {
	for _, p := range vec {
		if len(p) > 0 {
			return p
		}
	}
	return nil
}

func nowError(errno syscall.Errno) error {
	if errno == syscall.EAGAIN {
		return backend.ErrAgain
	}
	return errno
}

// splice tries a splice without waiting. It returns false, and leaves *c alone, if it
// would have to wait for the handle; if the pipe is full, or empty, the result is
// ErrAgain.
func (b *Backend) splice(op *backend.Op, c *backend.Completion) bool {
	from, to, events := int(op.Handle), int(op.Peer), int16(pollOut)
	if op.Kind == backend.SpliceOut {
		from, to, events = to, from, pollIn
	}
	b.stats.Calls++
	n, errno := sys.Splice(from, to, int(op.Max))
	if errno == syscall.EAGAIN {
		b.stats.Calls++
		if sys.Poll(int(op.Peer), events)&events != 0 {
			return false
		}
		*c = backend.Completion{Op: op, Err: backend.ErrAgain}
		return true
	}
	*c = backend.Completion{Op: op, N: n, Err: failed(errno)}
	return true
}
