package sim

import (
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

// serve finishes the Op in a place, as far as it can, and returns how many
// results that made; there is room for one at least.
func (b *Backend) serve(s *socket, p int, done []backend.Completion) int {
	w := b.w
	op := s.ops[p]
	bit := uint8(1) << p
	if len(w.holds) > 0 && w.holdResult(s, p) {
		return 0
	}
	multi := op.Flags&backend.Multi != 0 && (op.Kind != backend.Read || op.Buf == nil) && s.canceling&bit == 0
	if multi && w.random[forAgain].chance(w.faults.EarlyEnd) {
		if w.random[forAgain].below(2) == 0 {
			s.clear(p)
			b.result(s, op, &done[0], 0, backend.ErrAgain)
			return 1
		}
		multi = false
	}
	limit := 1
	if multi && (op.Kind == backend.Accept || op.Kind == backend.RecvFrom) {
		limit = min(acceptsMax, len(done))
	}
	n := 0
	for n < limit {
		c := &done[n]
		switch {
		case b.attempt(s, op, c):
		case n > 0:
			return n
		case s.cancelDue&bit != 0:
			b.result(s, op, c, 0, backend.ErrCanceled)
		case op.Flags&backend.Now != 0:
			b.result(s, op, c, 0, backend.ErrAgain)
		default:
			return 0
		}
		n++
		c.More = multi && c.Err == nil && (op.Kind != backend.Read || c.N > 0)
		if !c.More {
			s.clear(p)
			break
		}
	}
	return n
}

// result fills c in and writes it down.
func (b *Backend) result(s *socket, op *backend.Op, c *backend.Completion, n int, err error) {
	b.w.stats.Results++
	if err != nil && op.Kind == backend.Accept {
		n = int(backend.None)
	}
	b.w.record(Result, b.host, s.id, int64(op.Kind)<<32|int64(uint32(n)), errorNumber(err))
	*c = backend.Completion{Op: op, N: n, Err: err}
}

// attempt tries op once. It returns false, and leaves c alone, where op has to
// wait.
func (b *Backend) attempt(s *socket, op *backend.Op, c *backend.Completion) bool {
	w := b.w
	if op.Kind == backend.Write && total(op.Vec) == 0 {
		b.result(s, op, c, 0, nil)
		return true
	}
	if !s.can(op) {
		return false
	}
	if op.Flags&backend.Now != 0 && w.random[forAgain].chance(w.faults.Again) {
		return false
	}
	short := 0
	if op.Kind != backend.Connect { // whose call was its beginning
		if err := w.intercept(attemptWhats[op.Kind], b.host, &short); err != nil {
			b.result(s, op, c, 0, err)
			return true
		}
	}
	switch op.Kind {
	case backend.Read:
		b.read(s, op, c, short)
	case backend.Write:
		b.write(s, op, c, short)
	case backend.Accept:
		return b.accept(s, op, c)
	case backend.RecvFrom:
		return b.recvFrom(s, op, c)
	case backend.SendTo:
		return b.sendTo(s, op, c)
	case backend.Connect:
		b.result(s, op, c, 0, s.failure())
	case backend.Hangup:
		b.result(s, op, c, 0, s.failure())
	case backend.Ready:
		b.result(s, op, c, int(s.events(op.Events)), nil)
	default:
		b.result(s, op, c, 0, backend.ErrUnsupported)
	}
	return true
}

// failure is how s broke, or nil.
func (s *socket) failure() error {
	if s.err == 0 {
		return nil
	}
	return s.err
}

func (b *Backend) read(s *socket, op *backend.Op, c *backend.Completion, short int) {
	w := b.w
	n := s.unread()
	if s.state != open && s.state != dead {
		b.result(s, op, c, 0, syscall.ENOTCONN)
		return
	}
	if n == 0 {
		err := s.failure()
		if s.err == syscall.EPIPE {
			err = nil // the end had arrived before it broke
		}
		b.result(s, op, c, 0, err)
		return
	}
	buf := op.Buf
	if buf == nil {
		n = min(n, readMax)
	} else {
		n = min(n, len(buf))
	}
	if w.random[forCuts].chance(w.faults.CutRead) {
		n = w.random[forCuts].cut(n)
	}
	if short > 0 {
		n = min(n, short)
	}
	if buf == nil {
		buf = b.lent.lend(n)
	}
	buf = buf[:n:n]
	in := &s.peer.out
	in.ring.read(in.read, buf)
	in.read += uint64(n)
	in.tidy(&w.pool)
	b.result(s, op, c, n, nil)
	c.Buf = buf
	if from := s.peer; s.kind != tcp {
		from.kick()
	} else if in.written > in.sent || int(in.read+uint64(s.opts.recvBuffer)-in.edge) >= s.opts.recvBuffer/2 {
		w.openWindow(from)
	}
}

func total(vec [][]byte) int {
	n := 0
	for _, p := range vec {
		n += len(p)
	}
	return n
}

func (b *Backend) write(s *socket, op *backend.Op, c *backend.Completion, short int) {
	w := b.w
	switch {
	case s.err != 0:
		b.result(s, op, c, 0, s.err)
		return
	case s.state != open && s.kind == local && s.state != dead:
		b.result(s, op, c, 0, syscall.ENOTCONN)
		return
	case s.state != open || s.wshut || s.broken:
		b.result(s, op, c, 0, syscall.EPIPE)
		return
	}
	if errno := w.callError(w.faults.WriteError, syscall.ENOBUFS); errno != 0 {
		b.result(s, op, c, 0, errno)
		return
	}
	n := min(total(op.Vec), s.room())
	if w.random[forCuts].chance(w.faults.CutWrite) {
		n = w.random[forCuts].cut(n)
	}
	if short > 0 {
		n = min(n, short)
	}
	f := &s.out
	f.ring.grow(&w.pool, f.read, f.written, f.written+uint64(n))
	left := n
	for _, p := range op.Vec {
		p = p[:min(len(p), left)]
		w.trace.bytes(p)
		f.ring.write(f.written, p)
		f.written += uint64(len(p))
		if left -= len(p); left == 0 {
			break
		}
	}
	w.stats.Bytes += n
	w.transmit(s)
	b.result(s, op, c, n, nil)
}

func (b *Backend) accept(s *socket, op *backend.Op, c *backend.Completion) bool {
	w := b.w
	if s.state != listening {
		b.result(s, op, c, 0, syscall.EINVAL)
		return true
	}
	if b.npeers == len(b.peers) {
		return false
	}
	errno := w.acceptError(s.listener)
	if errno == 0 && b.host.scarce() {
		errno = syscall.EMFILE
	}
	if errno != 0 {
		b.result(s, op, c, 0, errno)
		return true
	}
	if b.host.open >= b.host.limit {
		b.result(s, op, c, 0, syscall.EMFILE)
		return true
	}
	conn := s.listener.pop()
	b.host.give(conn, b)
	peer := &b.peers[b.npeers]
	b.npeers++
	*peer = conn.remote
	b.result(s, op, c, int(conn.h), nil)
	c.Peer = peer
	return true
}

// lender is the memory that a backend lends until the next Wait.
type lender struct {
	slabs [][]byte
	slab  int // the current one
	used  int // of it
}

const (
	slabSize  = 4 * readMax
	slabsKept = 4
)

// lend returns n bytes, readMax at most.
func (l *lender) lend(n int) []byte {
	if l.slab < len(l.slabs) && slabSize-l.used < n {
		l.slab++
		l.used = 0
	}
	if l.slab == len(l.slabs) {
		l.slabs = append(l.slabs, make([]byte, slabSize))
	}
	p := l.slabs[l.slab][l.used : l.used+n : l.used+n]
	l.used += n
	return p
}

// spoiled is what borrowed memory is filled with when the time is up, so that
// whoever looks at it afterwards reads nonsense.
const spoiled = 0xdb

// back takes back what was lent.
func (l *lender) back() {
	for i := 0; i <= l.slab && i < len(l.slabs); i++ {
		p := l.slabs[i]
		if i == l.slab {
			p = p[:l.used]
		}
		spoil(p)
	}
	if len(l.slabs) > slabsKept {
		clear(l.slabs[slabsKept:])
		l.slabs = l.slabs[:slabsKept]
	}
	l.slab, l.used = 0, 0
}

func spoil(p []byte) {
	if len(p) == 0 {
		return
	}
	p[0] = spoiled
	for n := 1; n < len(p); n *= 2 {
		copy(p[n:], p[:n])
	}
}
