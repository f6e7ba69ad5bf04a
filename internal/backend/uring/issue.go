//go:build linux

package uring

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// bulk is the size from which a receive counts as part of a stream that is paused now
// and then. Ending a multishot receive and arming it again for each pause costs more
// than submitting receives of that size one by one.
const bulk = 16 << 10

const (
	pollIn  = unix.POLLIN
	pollOut = unix.POLLOUT
	pollBad = unix.POLLERR | unix.POLLHUP // always reported

	// No send waits in the kernel: once the peer has ended its writing, the kernel
	// would try without end, and then hand the send to a thread that waits until all of
	// it has left. Sends that find no room are polled for.
	sendFlags = unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT
	// A send with these flags succeeds only as a whole: if it falls short, a completion
	// says so.
	quietSendFlags = sendFlags | unix.MSG_WAITALL
)

// address is the form in which the kernel is told where something is. The memory that
// it points into must be on the heap and referred to by the slot or its Op.
func address(p unsafe.Pointer) uint64 { return uint64(uintptr(p)) }

func pollEntry(e *sqe, fd int, events uint32) {
	if bigEndian {
		events = events<<16 | events>>16
	}
	e.opcode, e.fd, e.opFlags = opPollAdd, int32(fd), events
}

// issue fills in the submission of slot i.
func (b *Backend) issue(e *sqe, i uint32) {
	s := b.slots.at(i)
	op := s.op
	e.fd = int32(op.Handle)
	switch {
	case s.polling:
		b.issuePoll(e, s)
	case op.Kind == backend.Read:
		b.issueRead(e, s)
	case op.Kind == backend.Write:
		b.issueWrite(e, s, i)
	case op.Kind == backend.Accept:
		e.opcode = opAccept
		e.opFlags = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
		if op.Flags&backend.Multi != 0 && b.has&MultiAccept != 0 {
			e.ioprio = acceptMultishot
		}
	case op.Kind == backend.Connect:
		e.opcode = opConnect
		e.addr = address(s.aux.addr.Pointer())
		e.off = uint64(*s.aux.addr.Len())
	}
	e.userData = b.slots.data(i)
}

func (b *Backend) issuePoll(e *sqe, s *slot) {
	op := s.op
	events := uint32(0)
	switch op.Kind {
	case backend.Read, backend.SpliceIn, backend.RecvFrom:
		events = pollIn
	case backend.Write, backend.SpliceOut, backend.SendTo, backend.Connect:
		events = pollOut
	case backend.Hangup:
		// Not one-shot: the end of the peer's writing alone would fire a one-shot poll
		// at once, each time.
		e.length = pollAddMulti
	case backend.Ready:
		if op.Events&backend.Readable != 0 {
			events |= pollIn
		}
		if op.Events&backend.Writable != 0 {
			events |= pollOut
		}
	case backend.Accept: // never polled for
	}
	if s.patient {
		// The kernel's polls always ask for the end of the peer's writing too. Once
		// that has come, and as long as it is not a result, a one-shot poll ends as
		// soon as it is armed.
		e.length = pollAddMulti
	}
	pollEntry(e, int(op.Handle), events)
}

func (b *Backend) issueRead(e *sqe, s *slot) {
	op := s.op
	fromSocket := b.class(op.Handle) == socket
	if fromSocket {
		e.opcode = opRecv
	} else {
		e.opcode, e.off = opRead, currentPosition
	}
	buf := op.Buf
	if buf == nil {
		if fromSocket {
			e.flags, e.bufGroup = sqeBufferSelect, b.bufs.group
			if op.Flags&backend.Multi != 0 && b.has&MultiRecv != 0 && b.handle(op.Handle).busy&bulky == 0 {
				e.ioprio = recvMultishot
			}
			return
		}
		a := b.slots.aux(s)
		if a.slab == nil {
			a.slab = b.slab()
		}
		buf = a.slab
	}
	e.addr, e.length = address(unsafe.Pointer(&buf[0])), uint32(min(len(buf), maxIO))
}

// maxIO is the most that one call moves in Linux.
const maxIO = 0x7ffff000

func (b *Backend) issueWrite(e *sqe, s *slot, i uint32) {
	op := s.op
	toSocket := b.class(op.Handle) == socket
	if toSocket {
		e.opFlags = sendFlags
		if op.Flags&backend.Quiet != 0 && b.has&SkipSuccess != 0 {
			e.opFlags, e.flags = quietSendFlags, sqeSkipSuccess
			s.quiet = true
			b.hushed = append(b.hushed, hushed{b.slots.data(i), b.ring.tail - 1})
		}
	} else {
		e.off = currentPosition
	}
	first, pieces := 0, 0
	for k, p := range op.Vec {
		if len(p) > 0 {
			if pieces == 0 {
				first = k
			}
			pieces++
		}
	}
	if pieces == 1 && len(op.Vec[first]) <= maxIO {
		p := op.Vec[first]
		e.opcode = opWrite
		if toSocket {
			e.opcode = opSend
		}
		e.addr, e.length = address(unsafe.Pointer(&p[0])), uint32(len(p))
		return
	}
	a := b.slots.aux(s)
	a.iov = a.iov[:0]
	const most = 1024 // IOV_MAX; a quiet write may not be cut short silently
	for _, p := range op.Vec[first:] {
		if len(p) == 0 {
			continue
		}
		if len(a.iov) == most {
			b.speakUp(e, s)
			break
		}
		v := unix.Iovec{Base: &p[0]}
		v.SetLen(len(p))
		a.iov = append(a.iov, v)
	}
	if !toSocket {
		e.opcode = opWritev
		e.addr, e.length = address(unsafe.Pointer(&a.iov[0])), uint32(len(a.iov))
		return
	}
	a.hdr = unix.Msghdr{Iov: &a.iov[0]}
	a.hdr.SetIovlen(len(a.iov))
	e.opcode, e.length = opSendmsg, 1
	e.addr = address(unsafe.Pointer(&a.hdr))
}

// speakUp makes a quiet submission an ordinary one: its success is not yet the success
// of the whole Op.
func (b *Backend) speakUp(e *sqe, s *slot) {
	if s.quiet {
		s.quiet = false
		b.hushed = b.hushed[:len(b.hushed)-1]
		e.opFlags, e.flags = sendFlags, 0
	}
}

// slab returns memory for a read that brings none of its own and cannot use the shared
// buffers.
func (b *Backend) slab() []byte {
	if n := len(b.slabs); n > 0 {
		s := b.slabs[n-1]
		b.slabs[n-1] = nil
		b.slabs = b.slabs[:n-1]
		return s
	}
	return make([]byte, slabSize)
}

// total is how many bytes vec holds.
func total(vec [][]byte) int {
	n := 0
	for _, p := range vec {
		n += len(p)
	}
	return n
}

// bigEndian machines see the 32 bits of poll events with their halves swapped.
var bigEndian = *(*byte)(unsafe.Pointer(&[1]uint16{1})) == 0
