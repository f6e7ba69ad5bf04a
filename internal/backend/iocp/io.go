//go:build windows

package iocp

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/weir-io/weir/internal/backend"
)

// begun sorts the answer to the beginning of an operation: whether its packet comes, and if
// not, with which error it ended.
func (b *Backend) begun(errno syscall.Errno) (flying bool, err error) {
	b.stats.Calls++
	switch {
	case errno == windows.ERROR_IO_PENDING, errno == 0 && !b.skips:
		b.inFlight++
		return true, nil
	case errno == 0:
		return false, nil
	default:
		return false, asErrno(errno)
	}
}

// probe has it waited for that there is something to receive. It may find at once that
// there is.
func (h *handle) probe(b *Backend) error {
	if h.class == datagrams {
		return h.probeDatagram(b)
	}
	if err := b.attach(h); err != nil {
		return err
	}
	sl := b.slots.take(h, backend.Read, false)
	b.stats.Probes++
	if flying, _ := b.begun(b.calls.startProbe(h.s, sl)); flying {
		h.rdSlot = sl
		return nil
	}
	b.slots.drop(sl)
	h.readable = true // with an error too: the receive that follows says what it is
	return nil
}

// receive takes what is there for op. It returns false if there is nothing.
func (h *handle) receive(b *Backend, op *backend.Op, c *backend.Completion) bool {
	buf := op.Buf
	if buf == nil {
		buf = b.memory()
		if op.Kind == backend.RecvFrom && op.Max > 0 {
			buf = buf[:min(int(op.Max), len(buf))]
		}
	}
	*c = backend.Completion{Op: op}
	if h.class == datagrams {
		return h.receiveDatagram(b, buf, c)
	}
	b.one = windows.WSABuf{Len: uint32(len(buf)), Buf: &buf[0]}
	b.stats.Calls++
	n, errno := b.calls.recvNow(h.s, &b.one)
	b.one.Buf = nil
	switch errno {
	case 0:
	case windows.WSAEWOULDBLOCK:
		h.readable = false
		return false
	default:
		c.Err = asErrno(errno)
		return true
	}
	// Fewer than there was room for were all there were, so that the next has to wait.
	h.readable = n == len(buf) || n == 0
	c.N, c.Buf = n, buf[:n:n]
	if op.Buf == nil {
		b.lent += n
	}
	return true
}

// gather fills b.bufs with the pieces of vec that one call sends.
func (b *Backend) gather(vec [][]byte, most int) []windows.WSABuf {
	n := 0
	for _, p := range vec {
		if len(p) == 0 {
			continue
		}
		if n == len(b.bufs) || most == 0 {
			break
		}
		p = p[:min(len(p), most)]
		most -= len(p)
		b.bufs[n] = windows.WSABuf{Len: uint32(len(p)), Buf: &p[0]}
		n++
	}
	return b.bufs[:n]
}

// sendOnce bounds what one call is given: Winsock takes whatever it is given as long as its
// buffer is not full yet, however much that is, and has to keep it.
const sendOnce = 1 << 20

// writeNow sends what there is room for. It returns false if there is none.
func (h *handle) writeNow(b *Backend, op *backend.Op, c *backend.Completion) bool {
	if op.Kind == backend.SendTo {
		return h.sendNow(b, op, c)
	}
	*c = backend.Completion{Op: op}
	bufs := b.gather(op.Vec, sendOnce)
	if len(bufs) == 0 {
		return true
	}
	b.stats.Calls++
	n, errno := b.calls.sendNow(h.s, bufs)
	clear(bufs)
	switch errno {
	case 0:
		c.N = n
	case windows.WSAEWOULDBLOCK:
		*c = backend.Completion{}
		return false
	default:
		c.Err = asErrno(errno)
	}
	return true
}

// startWrite gives the system the bytes of op, for when it has room.
func (h *handle) startWrite(b *Backend, op *backend.Op) error {
	if err := b.attach(h); err != nil {
		return err
	}
	sl := b.slots.take(h, op.Kind, true)
	h.over = outcomeOf{}
	var errno syscall.Errno
	if op.Kind == backend.SendTo {
		if err := h.keepDatagram(op, sl.aux); err != nil {
			b.slots.drop(sl)
			return err
		}
		errno = b.calls.startSendTo(h.s, sl, h.connected)
	} else {
		sl.aux.point(op.Vec)
		errno = b.calls.startSend(h.s, sl)
	}
	flying, err := b.begun(errno)
	if flying {
		h.wrSlot = sl
		return nil
	}
	if err == nil {
		h.over = outcomeOf{true, int(sl.ov.InternalHigh), nil}
	}
	b.slots.drop(sl)
	return err
}

// finishWrite reports how a Write or SendTo that waited has ended. A short count is one;
// what a cancel left unsent is the caller's.
func (h *handle) finishWrite(_ *Backend, op *backend.Op, c *backend.Completion) {
	*c = backend.Completion{Op: op, N: h.over.n, Err: h.over.err}
	h.over = outcomeOf{}
	switch {
	case c.Err != nil && c.N > 0 && op.Kind == backend.Write:
		c.Err = nil // the next Write has the error
	case c.Err != nil:
		c.N = 0
	case op.Packets != nil && op.Kind == backend.SendTo:
		c.N = 1
	}
}

// startConnect begins a connection. ConnectEx wants a socket that is bound.
func (h *handle) startConnect(b *Backend, op *backend.Op) error {
	if !h.bound {
		if err := h.bind(h.local.IP); err != nil {
			return err
		}
	}
	if err := b.attach(h); err != nil {
		return err
	}
	sl := b.slots.take(h, backend.Connect, true)
	if err := sl.aux.addr.set(op.Addr.IP, h.ipv6); err != nil {
		b.slots.drop(sl)
		return err
	}
	h.over = outcomeOf{}
	flying, err := b.begun(b.calls.startConnect(h.s, sl))
	if flying {
		h.wrSlot = sl
		return nil
	}
	b.slots.drop(sl)
	h.over = outcomeOf{done: true, err: err}
	return nil
}

func (h *handle) finishConnect(op *backend.Op, c *backend.Completion) {
	*c = backend.Completion{Op: op, Err: h.over.err}
	h.over = outcomeOf{}
	if c.Err != nil {
		return
	}
	// Without this the socket has no peer, and cannot be shut.
	if err := windows.Setsockopt(h.s, windows.SOL_SOCKET, windows.SO_UPDATE_CONNECT_CONTEXT, nil, 0); err != nil {
		c.Err = asErrno(err)
		return
	}
	h.connected = true
	h.peer = backend.Addr{Family: backend.Inet, IP: unmap(op.Addr.IP)}
	if a, err := nameOf(h.s, false); err == nil {
		h.local = a
	}
}

// serveAccept hands out a connection, and has the next one waited for.
func (h *handle) serveAccept(b *Backend, op *backend.Op, c *backend.Completion) bool {
	for len(h.arrived) == 0 {
		if h.rdSlot != nil {
			return false
		}
		if err := h.startAccept(b); err != nil {
			*c = backend.Completion{Op: op, Err: err}
			return true
		}
	}
	a := h.arrived[0]
	h.arrived = h.arrived[:copy(h.arrived, h.arrived[1:])]
	*c = backend.Completion{Op: op, Err: a.err}
	if a.err != nil {
		return true
	}
	got, err := h.made(b, a.s, &a.raw)
	if err != nil {
		discard(a.s)
		b.enqueue(h) // a connection that is gone already is no result
		return false
	}
	c.N = int(b.add(got))
	c.Peer = b.lendPeer()
	*c.Peer = got.peer
	return true
}

// startAccept begins to accept a connection. Unless it has to wait, that is in h.arrived.
func (h *handle) startAccept(b *Backend) error {
	if err := b.attach(h); err != nil {
		return err
	}
	s, err := socket(h.ipv6, false)
	if err != nil {
		return err
	}
	sl := b.slots.take(h, backend.Accept, true)
	sl.aux.accepted = s
	flying, err := b.begun(b.calls.startAccept(h.s, sl))
	if flying {
		h.rdSlot = sl
		return nil
	}
	h.acceptEnded(sl, err)
	b.slots.drop(sl)
	return nil
}

// acceptEnded keeps what an AcceptEx came to. One that was canceled, or whose peer has
// gone already, is nothing to report.
func (h *handle) acceptEnded(sl *slot, err error) {
	switch {
	case err == nil:
		h.arrived = append(h.arrived, accepted{s: sl.aux.accepted, raw: sl.aux.names})
		return
	case errors.Is(err, backend.ErrCanceled), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNABORTED):
	default:
		h.arrived = append(h.arrived, accepted{err: err})
	}
	_ = windows.Closesocket(sl.aux.accepted)
}

// made makes the handle of an accepted connection.
func (h *handle) made(b *Backend, s windows.Handle, names *[2 * acceptRoom]byte) (*handle, error) {
	listener := h.s
	if err := windows.Setsockopt(s, windows.SOL_SOCKET, windows.SO_UPDATE_ACCEPT_CONTEXT,
		(*byte)(unsafe.Pointer(&listener)), int32(unsafe.Sizeof(listener))); err != nil {
		return nil, asErrno(err)
	}
	got := &handle{s: s, ipv6: h.ipv6, bound: true, connected: true}
	for _, o := range h.options {
		// The listener took the option; a connection that does not is about to report why
		// by itself.
		if setOption(s, h.ipv6, o.Option, o.Value) == nil {
			got.remember(o.Option, o.Value)
		}
	}
	got.local.Family, got.peer.Family = backend.Inet, backend.Inet
	got.local.IP, got.peer.IP = b.calls.namesOf(names)
	return got, nil
}

// lendPeer is memory for an address, which lasts until the next Wait.
func (b *Backend) lendPeer() *backend.Addr {
	if b.peered == len(b.peers) {
		// What is out stays with its borrowers.
		b.peers, b.peered = make([]backend.Addr, 64), 0
	}
	b.peered++
	return &b.peers[b.peered-1]
}
