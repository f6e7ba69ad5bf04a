package epoll

import (
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
	"golang.org/x/sys/unix"
)

// Wait reports results into done. Reads and accepts happen in here, one read
// per handle and Wait; writes that had to wait are tried again. Signals do not
// end it early.
func (b *Backend) Wait(timeout time.Duration, done []backend.Completion) (int, error) {
	if b.ep < 0 {
		return 0, unix.EBADF
	}
	b.lent, b.npeers = 0, 0
	if b.inbox != nil {
		b.inbox.Reset()
	}
	b.out, b.n = done, 0
	b.verify.touched()

	var until time.Duration // the deadline, once it is needed
	if timeout > 0 {
		until = b.Now() + timeout
		if until < 0 {
			timeout = -1 // past the end of the clock
		}
	}
	left := timeout
	b.carried = true
	for {
		b.reportFailed()
		woken := false
		if b.ready.over() {
			wait := left
			if b.n > 0 || !b.ready.empty() {
				wait = 0
			}
			if wait != 0 || b.hosted {
				wait = b.verify.check(b, wait)
				if len(b.failed) > 0 {
					continue
				}
			}
			var err error
			if _, woken, err = b.collect(wait); err != nil {
				return b.n, err
			}
			b.ready.turn()
			b.carried = false
		}
		b.serveRound()
		if b.n > 0 || woken || timeout == 0 && b.ready.over() {
			break
		}
		if timeout > 0 {
			if left = until - b.Now(); left <= 0 {
				left, timeout = 0, 0
				if !b.pending() {
					break
				}
			}
		}
	}
	if b.pending() {
		b.tell()
	}
	return b.n, nil
}

func (b *Backend) reportFailed() {
	k := 0
	for k < len(b.failed) && b.n < len(b.out) {
		f := &b.failed[k]
		f.op.State = idle
		b.emit(backend.Completion{Op: f.op, Err: f.err})
		k++
	}
	if k > 0 {
		rest := copy(b.failed, b.failed[k:])
		clear(b.failed[rest:])
		b.failed = b.failed[:rest]
	}
}

// serveRound serves the slots of the running round, as far as results and lent
// memory have room.
func (b *Backend) serveRound() {
	for !b.ready.over() && b.n < len(b.out) && arenaSize-b.lent >= readSize {
		s := b.table.at(b.ready.pop())
		s.flags &^= waiting
		if s.flags&used != 0 {
			b.serve(s)
		}
	}
}

func (b *Backend) emit(c backend.Completion) {
	b.out[b.n] = c
	b.n++
}

func (b *Backend) room() bool { return b.n < len(b.out) }

// end makes the Op in place idle and reports its last result.
func (b *Backend) end(place **backend.Op, c backend.Completion) {
	c.Op = *place
	c.Op.State = idle
	*place = nil
	b.emit(c)
}

// serve does what the hints of s allow.
func (b *Backend) serve(s *slot) {
	if s.flags&(edge|always) == 0 {
		b.tame(s)
	}
	// Conditions come first: a read below may end them.
	if s.cond != nil && b.room() {
		b.serveReady(s)
	}
	s.flags &^= stale
	if s.rd != nil && s.ready&canRead != 0 && b.room() {
		switch s.rd.Kind {
		case backend.Accept:
			b.serveAccept(s)
		case backend.SpliceIn:
			b.serveSplice(s, &s.rd, canRead)
		case backend.RecvFrom:
			b.serveRecvFrom(s)
		default:
			b.serveRead(s)
		}
	}
	if s.wr != nil && s.ready&canWrite != 0 && b.room() {
		switch s.wr.Kind {
		case backend.Connect:
			b.serveConnect(s)
		case backend.SpliceOut:
			b.serveSplice(s, &s.wr, canWrite)
		case backend.SendTo:
			b.serveSendTo(s)
		default:
			b.serveWrite(s)
		}
	}
	if s.hup != nil && s.ready&(hungUp|erred) != 0 && b.room() {
		b.serveHangup(s)
	}
	switch {
	case s.flags&always != 0:
		s.ready = canRead | canWrite
	case s.flags&edge == 0 && (b.room() || !s.due()):
		// The kernel will report it again. If the results had no room for all slots, it
		// would report them in the same order each time, and the last would never get
		// its turn: those stay in the queue, with hints that the next Wait can no
		// longer trust.
		s.ready = 0
	case s.flags&edge == 0:
		s.flags |= stale
	}
	if s.due() {
		b.ready.push(s)
	}
}

// tame stops events that a level-triggered registration reports and no one waits for.
func (b *Backend) tame(s *slot) {
	if s.ready&(hungUp|erred) != 0 && s.idle() {
		b.unwatch(s) // these cannot be masked
		return
	}
	var drop uint16
	if s.ready&canRead != 0 {
		drop |= unix.EPOLLIN
	}
	if s.ready&canWrite != 0 {
		drop |= unix.EPOLLOUT
	}
	b.narrow(s, drop&^s.need())
}

// buffer returns where the bytes of a Read go: its own memory, or memory to lend.
// Inside Wait there is always room to lend; a Submit that finds none left gets fresh
// memory.
func (b *Backend) buffer(op *backend.Op, size int) []byte {
	if op.Buf != nil {
		return op.Buf
	}
	if arenaSize-b.lent < size {
		b.arena = make([]byte, arenaSize) // lent memory stays with its borrowers
		b.lent = 0
	}
	return b.arena[b.lent : b.lent+size : b.lent+size]
}

// filled returns the first n bytes of buffer(op), and counts them as lent.
func (b *Backend) filled(op *backend.Op, n int) []byte {
	p := b.buffer(op, n)[:n:n]
	if op.Buf == nil {
		b.lent += n
	}
	return p
}

func (b *Backend) serveRead(s *slot) {
	op := s.rd
	size := readSize
	if s.flags&full != 0 && b.ready.alone() {
		size = min(bulkSize, arenaSize-b.lent)
	}
	n, errno := b.read(s, b.buffer(op, size))
	s.flags &^= full
	if n >= readSize {
		s.flags |= full
	}
	switch {
	case errno == unix.EAGAIN:
	case errno != 0:
		b.end(&s.rd, backend.Completion{Err: errno})
	case n == 0:
		b.end(&s.rd, backend.Completion{})
	case op.Flags&backend.Multi != 0 && op.Buf == nil:
		b.emit(backend.Completion{Op: op, N: n, Buf: b.filled(op, n), More: true})
	default:
		b.end(&s.rd, backend.Completion{N: n, Buf: b.filled(op, n)})
	}
}

func (b *Backend) serveAccept(s *slot) {
	for i := 0; i < acceptsPerWait && b.room() && b.npeers < len(b.peers); i++ {
		b.calls.Accept++
		fd, errno := sys.Accept(int(s.fd), &b.sockaddr)
		if errno == unix.EAGAIN {
			s.ready &^= canRead | tail
			return
		}
		if errno != 0 {
			b.end(&s.rd, backend.Completion{N: int(backend.None), Err: errno})
			return
		}
		if s.more != nil {
			for _, o := range s.more.options {
				// The listener accepted the option; a connection that is already gone
				// will report that itself.
				_ = sys.SetOption(fd, o.Option, o.Value)
			}
		}
		peer := &b.peers[b.npeers]
		b.sockaddr.Decode(peer, fd)
		f := s.flags & (inet | ipv6)
		if f&inet != 0 {
			f |= edge
		}
		t, err := b.take(fd, sys.Socket, f)
		if err != nil {
			sys.Close(fd)
			b.end(&s.rd, backend.Completion{N: int(backend.None), Err: err})
			return
		}
		b.npeers++
		c := backend.Completion{Op: s.rd, N: int(t.fd), Peer: peer}
		if s.rd.Flags&backend.Multi == 0 {
			b.end(&s.rd, c)
			return
		}
		c.More = true
		b.emit(c)
	}
}

func (b *Backend) serveWrite(s *slot) {
	n, errno := b.write(s, s.wr)
	switch errno {
	case unix.EAGAIN:
	case 0:
		b.end(&s.wr, backend.Completion{N: n})
	default:
		b.end(&s.wr, backend.Completion{Err: errno})
	}
}

func (b *Backend) serveSplice(s *slot, place **backend.Op, need conds) {
	n, errno, stuck := b.splice(s, *place)
	switch {
	case stuck:
		b.end(place, backend.Completion{Err: backend.ErrAgain})
	case errno == unix.EAGAIN:
		s.ready &^= need
	case errno != 0:
		b.end(place, backend.Completion{Err: errno})
	default:
		b.end(place, backend.Completion{N: n})
	}
}

// serveConnect finds out how a connect ended. A TCP socket that can be written to, and
// reports neither an error nor a hang-up, is connected. Elsewhere the absence of an error is
// not enough: someone else may have fetched it.
func (b *Backend) serveConnect(s *slot) {
	if s.flags&inet != 0 && s.ready&(hungUp|erred) == 0 {
		b.end(&s.wr, backend.Completion{})
		return
	}
	fd := int(s.fd)
	b.calls.Option++
	errno := sys.PendingError(fd)
	if errno == 0 {
		b.calls.Name++
		errno = sys.Connected(fd)
		if errno == unix.ENOTCONN && s.ready&(hungUp|erred) == 0 {
			s.ready &^= canWrite // spurious
			return
		}
	}
	if errno != 0 {
		s.errno = uint16(errno)
		b.end(&s.wr, backend.Completion{Err: errno})
		return
	}
	b.end(&s.wr, backend.Completion{})
}

func (b *Backend) serveHangup(s *slot) {
	if s.class == sys.Socket {
		if errno := sys.PendingError(int(s.fd)); errno != 0 {
			s.errno = uint16(errno)
		}
	} else if s.ready&erred != 0 {
		s.errno = uint16(unix.EPIPE) // poll says no more about a pipe without a reader
	}
	c := backend.Completion{}
	if s.err() != 0 {
		c.Err = s.err()
	}
	b.end(&s.hup, c)
}

func (b *Backend) serveReady(s *slot) {
	if s.flags&raw != 0 {
		// A closed descriptor is reported as long as a duplicate lives: its watchers
		// would be called in every Wait, and reading would not end it.
		if b.verifySlot(s); s.flags&lost != 0 {
			return
		}
	}
	if (b.carried || s.flags&stale != 0) && s.flags&always == 0 {
		// The hints are from an earlier Wait, and the program has run since.
		s.ready = hints(uint32(sys.Poll(int(s.fd), unix.POLLIN|unix.POLLOUT)))
	}
	var e backend.Events
	if s.ready&canRead != 0 {
		e |= backend.Readable
	}
	if s.ready&canWrite != 0 {
		e |= backend.Writable
	}
	e &= s.cond.Events
	if s.ready&(hungUp|erred) != 0 {
		e |= backend.Failed
	}
	switch {
	case e == 0:
	case s.cond.Flags&backend.Multi != 0:
		b.emit(backend.Completion{Op: s.cond, N: int(e), More: true})
	default:
		b.end(&s.cond, backend.Completion{N: int(e)})
	}
}
