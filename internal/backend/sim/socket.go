package sim

import (
	"math"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

// state is a part of a socket's life.
//
//	        Submit(Connect)          evSynAck
//	idle ──────────────────▶ dialing ─────────▶ open ──────▶ dead
//	  │  ◀──────────────────    │                ▲   reset, time-out
//	  │        refused          └─▶ dead         │
//	  ▼ Open with Backlog                        │ evEstablish
//	listening                   embryo ──────────┘
//
// Being closed is no state of it: a socket that is open and closed is still
// sending what was written.
type state uint8

const (
	idle state = iota
	listening
	dialing
	embryo // answered, and not yet in the listener's queue
	open
	dead // reset or timed out
)

// transport is what a socket speaks.
type transport uint8

const (
	tcp transport = iota
	local
	pipe
	udp
)

// The places of a socket's Ops: one each.
const (
	placeRead  = iota // Read, Accept, RecvFrom
	placeWrite        // Write, Connect, SendTo
	placeHangup
	placeReady
	places
	noPlace = places
)

func placeOf(k backend.Kind) int {
	switch k {
	case backend.Read, backend.Accept, backend.RecvFrom:
		return placeRead
	case backend.Write, backend.Connect, backend.SendTo:
		return placeWrite
	case backend.Hangup:
		return placeHangup
	case backend.Ready:
		return placeReady
	default:
		return noPlace
	}
}

// socket is one end of a connection, or a listener, or neither yet.
type socket struct {
	w    *World
	host *Host
	be   *Backend // who has the handle; nil without one
	h    backend.Handle
	id   uint32
	gen  uint32 // of events that are about it; grows when they are void

	state  state
	kind   transport
	v6     bool
	dual   bool
	wshut  bool // no more is written: ShutWrite, or closed
	closed bool // the handle is closed
	broken bool // not TCP: the peer is closed
	gone   bool // its host crashed, or nothing of it is left
	queued bool // in its backend's ready list
	reuse  bool // ReusePort
	bound  bool // in its host's table of ports
	paired bool // in its host's table of connections

	err  syscall.Errno // how it broke; told again and again
	told bool          // PendingError has been read
	peer *socket
	out  flow
	ops  [places]*backend.Op
	opts options

	canceling uint8 // places whose Op was canceled and has yet to end
	cancelDue uint8 // those that end with the next Wait
	held      uint8 // places whose result a Hold keeps back
	passed    uint8 // those that a Hold has let go, once
	opGen     [places]uint32

	local, remote backend.Addr
	tries         int
	fate          *fate
	listener      *listener
	via           *socket // embryo: its listener
	inbox         *inbox  // of udp

	prev, next *socket // its host's list
}

// listener is what only listening sockets have.
type listener struct {
	backlog int
	embryos int
	waiting []*socket
	head    int    // of waiting
	path    string // to be removed at close
}

func (l *listener) len() int { return len(l.waiting) - l.head }

func (l *listener) push(s *socket) { l.waiting = append(l.waiting, s) }

// pop takes the connection that waits longest.
func (l *listener) pop() *socket {
	s := l.waiting[l.head]
	l.waiting[l.head] = nil
	if l.head++; l.head == len(l.waiting) {
		l.waiting, l.head = l.waiting[:0], 0
	}
	return s
}

// full reports whether there is room for one more connection. Linux queues one
// more than was asked for.
func (l *listener) full() bool { return l.len()+l.embryos > l.backlog }

type options struct {
	noDelay     bool
	broadcast   bool
	keepAlive   int // seconds; 0: off
	sendBuffer  int
	recvBuffer  int
	userTimeout int // milliseconds
	class       int // the traffic class's byte
	mark        int
	fastOpen    int

	dontFragment bool
	hops         int  // of what is sent to groups, and 1 more; 0: as many as the system says
	quiet        bool // the own host gets nothing of that
}

// flow is one direction of a connection: what a socket has been given to write,
// until its peer has read it. The counts are of bytes since the beginning.
//
//	read ≤ arrived ≤ sent ≤ written
//	│      │         │      └ taken from the writer
//	│      │         └ on the wire
//	│      └ with the peer
//	└ taken by the reader                acked ≤ arrived: as far as the writer knows
type flow struct {
	ring                               ring
	read, arrived, sent, written       uint64
	acked                              uint64
	edge                               uint64 // it may be sent so far: the peer's window
	lastAt                             int64  // when the last of what is on the wire arrives
	since                              int64  // when the first loss in a row was
	shutUntil                          int64  // the reader's window is shut until then
	tries                              int    // retries in a row
	epoch                              uint32 // of what is on the wire
	fin, finSent, finArrived, finAcked bool
	ackPending, ackAgain               bool
	retrying                           bool
	greet                              bool // that we heard the answer to our Syn was not told yet
}

// unread is how many bytes wait at the peer.
func (f *flow) unread() int { return int(f.arrived - f.read) }

// void forgets what is on the wire.
func (f *flow) void() {
	f.epoch++
	f.sent = f.arrived
	f.finSent = f.finArrived
	f.ackPending, f.ackAgain = false, false
}

func (w *World) newSocket(h *Host, kind transport) *socket {
	w.sockets++
	s := &socket{w: w, host: h, h: backend.None, id: w.sockets, kind: kind}
	s.opts.sendBuffer = w.faults.SendBuffer
	s.opts.recvBuffer = w.faults.ReceiveBuffer
	s.next = h.first
	if s.next != nil {
		s.next.prev = s
	}
	h.first = s
	return s
}

// forget takes a socket out of the books when nothing of it is left to do. What
// its peer has yet to read stays in its flow.
func (s *socket) forget() {
	if s.gone {
		return
	}
	s.gone = true
	s.gen++
	if s.inbox != nil {
		s.inbox.drop(s.w)
	}
	s.host.unpair(s)
	s.host.unbind(s)
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		s.host.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
}

// settle forgets a closed socket that has nothing left to send.
func (s *socket) settle() {
	if !s.closed || s.gone {
		return
	}
	if s.state == open && s.kind == tcp && !s.out.finAcked {
		return
	}
	s.forget()
}

// room is how many bytes a write may take now.
func (s *socket) room() int {
	from := s.out.acked
	if s.kind != tcp {
		from = s.out.read
	}
	return max(0, s.opts.sendBuffer-int(s.out.written-from))
}

// ended reports whether a reader that has read everything is at the end.
func (s *socket) ended() bool {
	return s.state == dead || s.peer != nil && s.peer.out.finArrived
}

func (s *socket) unread() int {
	if s.peer == nil {
		return 0
	}
	return s.peer.out.unread()
}

// due reports whether the Op in a place could finish now.
func (s *socket) due(p int) bool {
	op := s.ops[p]
	bit := uint8(1) << p
	if op == nil || s.held&bit != 0 {
		return false
	}
	switch {
	case s.cancelDue&bit != 0 || op.Flags&backend.Now != 0:
		return true
	case s.inbox != nil:
		return s.can(op)
	case op.Kind == backend.Write && s.can(op):
		return !s.sending() || s.spacious()
	}
	return s.can(op)
}

// sending reports whether all that a write can be short of is room.
func (s *socket) sending() bool { return s.state == open && s.err == 0 && !s.wshut && !s.broken }

// spacious reports whether a writer that waits is woken: as on Linux when a
// third of the buffer is free, so that it is not woken for every byte.
func (s *socket) spacious() bool {
	room := s.room()
	return room > 0 && 2*room >= s.opts.sendBuffer-room
}

// can reports whether op has something to say.
func (s *socket) can(op *backend.Op) bool {
	switch op.Kind {
	case backend.Read:
		return s.readable()
	case backend.RecvFrom:
		return s.inbox == nil || len(s.inbox.waiting) > 0
	case backend.SendTo:
		return s.inbox == nil || s.inbox.fullUntil <= s.w.now
	case backend.Accept:
		return s.state != listening || s.listener.len() > 0
	case backend.Write:
		return s.writable()
	case backend.Connect:
		return s.state != dialing
	case backend.Hangup:
		return s.hungUp()
	case backend.Ready:
		return s.events(op.Events) != 0
	default:
		return true
	}
}

func (s *socket) readable() bool {
	if s.inbox != nil {
		return len(s.inbox.waiting) > 0
	}
	switch s.state {
	case listening:
		return s.listener.len() > 0
	case dialing:
		return false
	case open, dead:
		return s.unread() > 0 || s.err != 0 || s.ended()
	default:
		return true
	}
}

func (s *socket) writable() bool {
	if s.inbox != nil {
		return s.inbox.fullUntil <= s.w.now
	}
	if s.state == listening || s.state == dialing {
		return false
	}
	return !s.sending() || s.room() > 0
}

func (s *socket) hungUp() bool {
	if s.inbox != nil {
		return false
	}
	switch s.state {
	case listening, dialing:
		return s.err != 0
	case open:
		return s.err != 0 || s.broken || s.wshut && s.ended()
	default:
		return true
	}
}

// events returns which of the conditions hold; Failed is among them always.
func (s *socket) events(want backend.Events) backend.Events {
	var e backend.Events
	if s.readable() {
		e |= backend.Readable
	}
	if s.writable() && (!s.sending() || s.spacious()) {
		e |= backend.Writable
	}
	e &= want
	if s.hungUp() {
		e |= backend.Failed
	}
	return e
}

// kick puts s on its backend's list if one of its Ops could finish.
func (s *socket) kick() {
	if s.queued || s.be == nil {
		return
	}
	for p := range s.ops {
		if s.ops[p] != nil && s.due(p) {
			s.queued = true
			s.be.ready.push(s)
			return
		}
	}
}

// die ends a connection from outside: a reset, a time-out, a refusal.
func (s *socket) die(errno syscall.Errno) {
	if s.state == dead || s.gone {
		return
	}
	s.state = dead
	if s.err == 0 {
		s.err = errno
	}
	s.gen++
	s.out.void()
	s.out.written = s.out.arrived // no one will send it
	s.out.tidy(&s.w.pool)
	s.host.unpair(s)
	s.kick()
	s.settle()
}

// discard lets go of what s would still read.
func (s *socket) discard() {
	if s.peer == nil {
		return
	}
	in := &s.peer.out
	in.read = in.arrived
	in.tidy(&s.w.pool)
}

// tidy gives the memory of an empty flow back.
func (f *flow) tidy(p *pool) {
	if f.read == f.written && f.ring.buf != nil {
		f.ring.release(p)
	}
}

const noEdge = math.MaxUint64

// join makes two sockets the ends of one connection.
func join(a, b *socket) {
	a.peer, b.peer = b, a
	a.out.edge, b.out.edge = uint64(b.opts.recvBuffer), uint64(a.opts.recvBuffer)
	if a.kind != tcp {
		a.out.edge, b.out.edge = noEdge, noEdge
	}
}
