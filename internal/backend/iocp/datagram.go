//go:build windows

package iocp

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/weir-io/weir/internal/backend"
)

// connectDatagram connects a socket of UDP to its peer.
func (h *handle) connectDatagram(to backend.Addr) error {
	sa, err := h.sockaddr(to.IP)
	if err != nil {
		return err
	}
	if err := windows.Connect(h.s, sa); err != nil {
		return asErrno(err)
	}
	h.connected, h.bound = true, true
	h.peer = to
	return nil
}

// refusals are what Winsock says to a datagram socket about a datagram that it sent.
func isRefusal(errno syscall.Errno) bool {
	return errno == windows.WSAECONNRESET || errno == windows.WSAECONNREFUSED || errno == windows.ERROR_PORT_UNREACHABLE
}

// probeDatagram does the same with the poll below select. A receive of no bytes would do for
// Winsock's other sockets only: for a datagram that is there it ends at once with a warning,
// and it is written nowhere whether a packet then follows.
func (h *handle) probeDatagram(b *Backend) error {
	if !h.bound && !h.connected {
		// Winsock receives on bound sockets only, and the contract on all.
		if err := h.bind(h.local.IP); err != nil {
			return err
		}
	}
	sl, _, err := b.startPoll(h, backend.RecvFrom, pollReceive|pollAbort|pollClosed)
	if err != nil {
		return err
	}
	b.stats.Probes++
	h.rdSlot, h.readable = sl, sl == nil
	return nil
}

// receiveDatagram takes one datagram. It returns false if there is none.
func (h *handle) receiveDatagram(b *Backend, buf []byte, c *backend.Completion) bool {
	if h.refusal != nil {
		c.Err, h.refusal = h.refusal, nil
		h.namePeer(b, c)
		return true
	}
	b.one = windows.WSABuf{Len: uint32(len(buf)), Buf: &buf[0]}
	b.stats.Calls++
	n, errno := b.calls.recvFromNow(h.s, &b.one, &b.from)
	b.one.Buf = nil
	switch {
	case errno == 0:
	case errno == windows.WSAEMSGSIZE:
		n, c.Truncated = len(buf), true
	case errno == windows.WSAEWOULDBLOCK:
		h.readable = false
		return false
	case isRefusal(errno):
		c.Err = syscall.ECONNREFUSED
		h.namePeer(b, c)
		return true
	default:
		c.Err = asErrno(errno)
		return true
	}
	c.N, c.Buf = n, buf[:n:n]
	if c.Op.Buf == nil {
		b.lent += n
	}
	c.Peer = b.lendPeer()
	*c.Peer = backend.Addr{Family: backend.Inet, IP: b.from.get()}
	return true
}

// namePeer says about whom an error is, where that is known.
func (h *handle) namePeer(b *Backend, c *backend.Completion) {
	if h.connected {
		c.Peer = b.lendPeer()
		*c.Peer = h.peer
	}
}

// datagram is the first datagram of op, and where it goes. The address is nil on a
// connected socket.
func (h *handle) datagram(op *backend.Op, one *[1][]byte) (vec [][]byte, to *backend.Addr, err error) {
	vec, to = op.Vec, op.Addr
	if op.Packets != nil {
		if len(*op.Packets) == 0 {
			return nil, nil, errInvalid
		}
		p := &(*op.Packets)[0]
		if p.Info != (backend.PacketInfo{}) {
			return nil, nil, backend.ErrUnsupported
		}
		one[0] = p.First()
		vec, to = one[:], &p.To
	}
	switch {
	case h.connected:
		return vec, nil, nil
	case to == nil || to.Family != backend.Inet:
		return nil, nil, errInvalid
	}
	return vec, to, nil
}

// sendNow sends the first datagram of op. It returns false if there is no room for it.
func (h *handle) sendNow(b *Backend, op *backend.Op, c *backend.Completion) bool {
	*c = backend.Completion{Op: op}
	var one [1][]byte
	vec, to, err := h.datagram(op, &one)
	if err != nil {
		c.Err = err
		return true
	}
	size := 0
	for _, p := range vec {
		size += len(p)
	}
	bufs := b.gather(vec, size)
	if size == 0 {
		bufs = b.bufs[:1] // an empty datagram
		bufs[0] = windows.WSABuf{}
	}
	sent := 0
	for _, p := range bufs {
		sent += int(p.Len)
	}
	if sent < size { // more pieces than one call takes
		b.joined = b.joined[:0]
		for _, p := range vec {
			b.joined = append(b.joined, p...)
		}
		bufs = b.bufs[:1]
		bufs[0] = windows.WSABuf{Len: uint32(size), Buf: &b.joined[0]}
	}
	var raw *sockaddr
	if to != nil {
		if err := b.to.set(to.IP, h.ipv6); err != nil {
			c.Err = err
			return true
		}
		raw = &b.to
	}
	b.stats.Calls++
	n, errno := b.calls.sendToNow(h.s, bufs, raw)
	if isRefusal(errno) {
		// It is about an earlier datagram, which is RecvFrom's to report.
		if h.connected {
			h.refusal = syscall.ECONNREFUSED
			b.enqueue(h)
		}
		n, errno = b.calls.sendToNow(h.s, bufs, raw)
	}
	clear(b.bufs[:])
	switch errno {
	case 0:
		h.bound = true
		c.N = n
		if op.Packets != nil {
			c.N = 1
		}
	case windows.WSAEWOULDBLOCK:
		*c = backend.Completion{}
		return false
	default:
		c.Err = asErrno(errno)
	}
	return true
}

// keepDatagram copies the first datagram of op to where the system finds it when there is
// room: closing the handle gives the caller's memory back at once.
func (h *handle) keepDatagram(op *backend.Op, a *aux) error {
	var one [1][]byte
	vec, to, err := h.datagram(op, &one)
	if err != nil {
		return err
	}
	a.keep(vec)
	if to != nil {
		return a.addr.set(to.IP, h.ipv6)
	}
	return nil
}

// Source returns the address from which something would be sent; see backend.Router.
func (b *Backend) Source(to netip.Addr) (netip.Addr, bool) {
	h := &handle{ipv6: to.Is6()}
	s, err := socket(h.ipv6, true)
	if err != nil {
		return netip.Addr{}, false
	}
	defer windows.Closesocket(s)
	h.s = s
	const discardPort = 9 // any will do: connecting a datagram socket sends nothing
	if h.connectDatagram(backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(to, discardPort)}) != nil {
		return netip.Addr{}, false
	}
	a, err := nameOf(s, false)
	return a.IP.Addr(), err == nil && !a.IP.Addr().IsUnspecified()
}

// Socket gives access to a datagram handle's socket; see backend.Controller.
func (b *Backend) Socket(n backend.Handle) (backend.Socket, error) {
	if n >= asideFrom && b.aside != nil {
		return b.aside.Socket(n)
	}
	h := b.handle(n)
	if h == nil || h.class != datagrams {
		return nil, errNotDatagram
	}
	return packetSocket{h.s, h.ipv6}, nil
}

// packetSocket is a datagram socket as a backend.Socket.
type packetSocket struct {
	s    windows.Handle
	ipv6 bool
}

var _ backend.Socket = packetSocket{}

func (p packetSocket) Control(f func(fd uintptr)) error {
	f(uintptr(p.s))
	return nil
}

func (p packetSocket) SetOption(o backend.Option, value int) error {
	return setOption(p.s, p.ipv6, o, value)
}
