//go:build windows

// Package iocp drives a loop by Windows' I/O completion ports: one port a loop, whose
// packets say what has ended.
//
//	Submit ──▶ try without waiting ──▶ result
//	              │ it would have to wait
//	              ▼
//	           slot ──▶ overlapped call ─▶ the system
//	                                          │ packet
//	Wait ◀── queue of handles ◀── slot ◀── port
//
// What an Op waits for is one of these:
//
//	Read             a receive of no bytes, so that idle connections hold no buffer
//	Write            WSASend of the Op's own bytes
//	SendTo           WSASendTo of a copy
//	Accept           AcceptEx
//	Connect          ConnectEx
//	RecvFrom, Hangup, Ready
//	                 the poll that Winsock's own select is made of
//
// The receive of no bytes takes none, so canceling a Read cannot lose any: the call stays in
// flight and serves the next Read. A canceled Accept may have a connection, which the handle
// keeps for the next one. A canceled Write is over when its packet has come.
//
// Everything that is not a socket of TCP or UDP (files, pipes, consoles, UNIX sockets,
// foreign connections) is served by a portable backend beside the port (aside.go).
package iocp

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/portable"
)

// Config shapes a backend. The zero value is good for most.
type Config struct {
	// NoSkip has the system post packets also for what succeeds at once, as it does where
	// sockets come from a layered provider.
	NoSkip bool
}

// Stats counts what a backend has done since it was made.
type Stats struct {
	Waits   uint64 // calls of GetQueuedCompletionStatusEx
	Packets uint64 // that it returned
	Calls   uint64 // other system calls for Ops (not for Open, Shut and options)
	Probes  uint64 // times that a receive was waited for
	Late    uint64 // packets whose handle or Op was gone
}

// Backend is a completion port and everything in flight on it.
type Backend struct {
	calls  calls
	start  time.Time
	port   windows.Handle
	skips  bool
	probed []string
	closed bool
	waker  waker
	aside  *portable.Backend // nil until it is needed
	asider asider

	table    []*handle // by Handle; nil is free
	freeFrom int       // no free number is below it
	queue    []*handle // with something to look at, from head on
	head     int
	refusals []backend.Completion // results of Multi Ops that could not be armed
	waits    uint64

	slots    slots
	inFlight int // packets to come
	packets  [batch]packet

	arena  []byte // lent until the next Wait
	lent   int
	peers  []backend.Addr
	peered int

	bufs   [writePieces]windows.WSABuf
	one    windows.WSABuf
	joined []byte // a datagram of many pieces
	from   sockaddr
	to     sockaddr

	stats Stats
}

var (
	_ backend.Backend    = (*Backend)(nil)
	_ backend.Mover      = (*Backend)(nil)
	_ backend.Awaiter    = (*Backend)(nil)
	_ backend.Controller = (*Backend)(nil)
	_ backend.Router     = (*Backend)(nil)
	_ backend.Sweeper    = (*Backend)(nil)
)

const (
	batch       = 128       // packets of one call
	arenaSize   = 512 << 10 // lent by one Wait, and by what is submitted before the next
	readMost    = 64 << 10  // one read
	writePieces = 64        // of one call that does not wait
)

// The states of an Op.
const (
	idle     uint32 = iota
	armed           // its handle's
	stopping        // canceled, and its packet still to come
	refused         // among the Ops that Wait has to report with an error
)

var errClosed = fmt.Errorf("iocp: backend is closed: %w", net.ErrClosed)

// The errors for a handle that is not what the Op takes it for.
const (
	errBadHandle    = syscall.EBADF
	errBusy         = syscall.EBUSY
	errInvalid      = syscall.EINVAL
	errNotConnected = syscall.ENOTCONN
	errIsConnected  = syscall.EISCONN
	errPipe         = syscall.EPIPE
	errNotDatagram  = syscall.EOPNOTSUPP
)

// New makes a backend, or reports why the system has none.
func New(c Config) (*Backend, error) {
	b := &Backend{start: time.Now()}
	var data windows.WSAData
	if err := windows.WSAStartup(0x202, &data); err != nil {
		return nil, fmt.Errorf("iocp: Winsock: %w", err)
	}
	s, err := windows.WSASocket(windows.AF_INET, windows.SOCK_STREAM, windows.IPPROTO_TCP, nil, 0,
		windows.WSA_FLAG_OVERLAPPED|windows.WSA_FLAG_NO_HANDLE_INHERIT)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("iocp: a socket: %w", err), windows.WSACleanup())
	}
	defer windows.Closesocket(s)
	if err := b.calls.load(s); err != nil {
		return nil, errors.Join(err, windows.WSACleanup())
	}
	if b.port, err = windows.CreateIoCompletionPort(windows.InvalidHandle, 0, 0, 1); err != nil {
		return nil, errors.Join(fmt.Errorf("iocp: a completion port: %w", err), windows.WSACleanup())
	}
	b.skips = !c.NoSkip && skips(s) && b.calls.skipOnSuccess(s) == 0
	word := map[bool]string{true: "yes", false: "no"}
	b.probed = []string{
		"skip-on-success: " + word[b.skips],
		"others: portable beside it, for files, pipes, consoles and UNIX sockets",
	}
	b.waker.port = b.port
	return b, nil
}

// skips reports whether a socket is the system's own: with a layered provider, a socket is
// not what packets are posted for, and skipping them would lose results.
func skips(s windows.Handle) bool {
	const soProtocolInfo = 0x2005 // SO_PROTOCOL_INFOW
	var info windows.WSAProtocolInfo
	size := int32(unsafe.Sizeof(info))
	err := windows.Getsockopt(s, windows.SOL_SOCKET, soProtocolInfo, (*byte)(unsafe.Pointer(&info)), &size)
	return err == nil && info.ServiceFlags1&windows.XP1_IFS_HANDLES != 0
}

// Now is the time since New.
func (b *Backend) Now() time.Duration { return time.Since(b.start) }

// Wall is the wall clock when New was called.
func (b *Backend) Wall() time.Time { return b.start.Round(0) }

// Caps says what was probed. Handles are numbers of the backend's own: a SOCKET does not
// fit one.
func (b *Backend) Caps() backend.Caps {
	return backend.Caps{
		Name: "iocp", Inline: true, PollFD: -1, Behind: true,
		Probed: append([]string(nil), b.probed...),
	}
}

// Stats returns the counts so far. It belongs to the loop's goroutine.
func (b *Backend) Stats() Stats { return b.stats }

// Submit arms op; see backend.Backend. A Write, a SendTo and an Op with Now are tried at
// once. Everything else waits for its turn in Wait, so that the Op submitted first is not
// always served first.
func (b *Backend) Submit(op *backend.Op, c *backend.Completion) bool {
	if op.Handle >= asideFrom && b.aside != nil {
		return b.aside.Submit(op, c)
	}
	if op.State != idle {
		return false // the caller's mistake; the first submission stands
	}
	h := b.handle(op.Handle)
	if err := h.check(op, b.closed); err != nil {
		return b.refuse(op, c, err)
	}
	now := op.Flags&backend.Now != 0
	switch op.Kind {
	case backend.Write, backend.SendTo:
		if h.writeNow(b, op, c) {
			return true
		}
		if now {
			*c = backend.Completion{Op: op, Err: backend.ErrAgain}
			return true
		}
		if err := h.startWrite(b, op); err != nil {
			*c = backend.Completion{Op: op, Err: err}
			return true
		}
		if h.over.done { // it was finished after all
			h.finishWrite(b, op, c)
			return true
		}
	case backend.Connect:
		if err := h.startConnect(b, op); err != nil {
			*c = backend.Completion{Op: op, Err: err}
			return true
		}
		if h.over.done {
			b.enqueue(h)
		}
	case backend.Read, backend.RecvFrom:
		if now && op.Flags&backend.Multi == 0 {
			if !b.room() || !h.receive(b, op, c) {
				*c = backend.Completion{Op: op, Err: backend.ErrAgain}
			}
			return true
		}
		b.enqueue(h)
	default:
		b.enqueue(h)
	}
	op.State = armed
	*h.place(op.Kind) = op
	return false
}

// check finds what is wrong with op, before anything is done. h may be nil.
func (h *handle) check(op *backend.Op, closed bool) error {
	switch {
	case closed, h == nil:
		return errBadHandle
	case h.place(op.Kind) == nil:
		return backend.ErrUnsupported
	case *h.place(op.Kind) != nil:
		return errBusy
	case (op.Kind == backend.Read || op.Kind == backend.RecvFrom) && op.Buf != nil && len(op.Buf) == 0:
		return errInvalid
	}
	datagram := op.Kind == backend.RecvFrom || op.Kind == backend.SendTo
	switch {
	case op.Kind == backend.Ready, op.Kind == backend.Hangup && (h.class == datagrams || h.connected):
	case h.class == datagrams && !datagram:
		return backend.ErrUnsupported
	case h.class != datagrams && datagram:
		return errNotDatagram
	case datagram:
		if op.Kind == backend.SendTo && op.Addr == nil && op.Packets == nil {
			return errInvalid
		}
	case op.Kind == backend.Accept:
		if h.class != listener {
			return errInvalid
		}
	case op.Kind == backend.Connect:
		switch {
		case h.connected:
			return errIsConnected
		case h.class == listener, op.Addr == nil, op.Addr.Family != backend.Inet:
			return errInvalid
		}
	case h.class == listener:
		return errInvalid
	case !h.connected:
		return errNotConnected
	case op.Kind == backend.Write && h.shut && !empty(op.Vec):
		return errPipe
	}
	return nil
}

// empty reports whether there is nothing to write: such a Write asks only whether all
// earlier ones are over (see Caps.Behind), which here they always are.
func empty(vec [][]byte) bool {
	for _, p := range vec {
		if len(p) > 0 {
			return false
		}
	}
	return true
}

// refuse finishes an Op that cannot be armed: at once, or, if it is Multi, by Wait.
func (b *Backend) refuse(op *backend.Op, c *backend.Completion, err error) bool {
	refusal := backend.Completion{Op: op, Err: err}
	if op.Flags&backend.Multi == 0 || b.closed {
		*c = refusal
		return true
	}
	op.State = refused
	b.refusals = append(b.refusals, refusal)
	b.waker.prompt()
	return false
}

// multi reports whether op may finish many times.
func multi(op *backend.Op) bool {
	if op.Flags&backend.Multi == 0 {
		return false
	}
	return op.Kind == backend.Accept || op.Kind == backend.Ready ||
		(op.Kind == backend.Read || op.Kind == backend.RecvFrom) && op.Buf == nil
}

// Cancel ends op; see backend.Backend. Only a Write whose bytes the system has must be
// awaited: they may be on their way.
func (b *Backend) Cancel(op *backend.Op) bool {
	if op.Handle >= asideFrom && b.aside != nil {
		return b.aside.Cancel(op)
	}
	switch op.State {
	case idle, stopping:
		return false
	case refused:
		for i := range b.refusals {
			if b.refusals[i].Op == op {
				b.refusals = append(b.refusals[:i], b.refusals[i+1:]...)
				break
			}
		}
		op.State = idle
		return true
	}
	h := b.handle(op.Handle)
	switch op.Kind {
	case backend.Write:
		if h.over.done {
			op.State = stopping // it is over, and Wait says how
			return false
		}
		op.State = stopping
		b.stats.Calls++
		b.calls.stop(h.s, h.wrSlot)
		return false
	case backend.SendTo, backend.Connect:
		h.over = outcomeOf{}
		b.leave(h, &h.wrSlot)
	case backend.Accept:
		if h.rdSlot != nil { // its connection, if it has one, is kept for the next Accept
			b.stats.Calls++
			b.calls.stop(h.s, h.rdSlot)
		}
	case backend.Hangup:
		h.hung = false
		b.leave(h, &h.hangSlot)
	case backend.Ready:
		b.leave(h, &h.readySlot)
	default: // Read, RecvFrom: the probe stays, for the next one
	}
	*h.place(op.Kind) = nil
	op.State = idle
	return true
}

// leave gives up what *at is waiting for.
func (b *Backend) leave(h *handle, at **slot) {
	sl := *at
	if sl == nil {
		return
	}
	*at = nil
	sl.h = nil
	b.stats.Calls++
	b.calls.stop(h.s, sl)
}

// Close ends what is in flight, waits until the system is done with it, and closes
// everything that is still open.
func (b *Backend) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	for n, h := range b.table {
		if h == nil {
			continue
		}
		for _, at := range []**backend.Op{&h.rd, &h.wr, &h.hang, &h.ready} {
			if *at != nil {
				(*at).State = idle
				*at = nil
			}
		}
		b.close(backend.Handle(n), h, false)
	}
	for i := range b.refusals {
		b.refusals[i].Op.State = idle
	}
	b.refusals, b.queue, b.head = nil, nil, 0
	b.closeAside()
	b.drain(closePatience)
	b.waker.close()
	if b.inFlight > 0 {
		// Something below does not give its operations back. Their memory must not be
		// used for anything else, so a goroutine of its own keeps it and waits on.
		go func() {
			b.drain(-1)
			b.release()
		}()
		return nil
	}
	return b.release()
}

// closePatience bounds how long Close waits for packets.
const closePatience = 2 * time.Second

func (b *Backend) release() error {
	return errors.Join(windows.CloseHandle(b.port), windows.WSACleanup())
}

// drain takes packets until none is to come, or for as long as limit, if that is not below 0.
func (b *Backend) drain(limit time.Duration) {
	until := b.Now() + limit
	for b.inFlight > 0 && (limit < 0 || b.Now() < until) {
		n, errno := b.calls.dequeue(b.port, b.packets[:], 100)
		if errno != 0 && errno != windows.WAIT_TIMEOUT {
			return
		}
		b.waker.takeIn(b)
		for i := range b.packets[:n] {
			b.completed(&b.packets[i])
		}
	}
}
