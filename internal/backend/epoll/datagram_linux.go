package epoll

import (
	"net/netip"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
	"golang.org/x/sys/unix"
)

// recvFrom tries to take a datagram, or what the network said of one, and fills
// c in but for its Op. It returns false where there is neither, and keeps the
// hints of s up to date. Room for a peer must be there.
func (b *Backend) recvFrom(s *slot, op *backend.Op, c *backend.Completion) bool {
	fd := int(s.fd)
	*c = backend.Completion{}
	if s.ready&erred != 0 && b.recvError(s, c) {
		return true
	}
	p := b.buffer(op, readSize)
	if op.Buf == nil && op.Max > 0 {
		p = p[:min(len(p), int(op.Max))]
	}
	b.calls.Read++
	n, errno := sys.RecvFrom(fd, p, &b.sockaddr)
	switch {
	case errno == unix.EAGAIN:
		s.ready &^= canRead | tail | erred
		return false
	case errno != 0:
		// The kernel tells whoever calls first that there is an error, but only
		// the queue tells whom it is about.
		if !b.recvError(s, c) {
			c.Err = errno
		}
		return true
	}
	c.Truncated = n > len(p)
	c.N = min(n, len(p))
	c.Buf = b.filled(op, c.N)
	c.Peer = b.peer(fd)
	return true
}

// recvError takes an entry of the error queue.
func (b *Backend) recvError(s *slot, c *backend.Completion) bool {
	b.calls.Read++
	errno := b.errors.RecvError(int(s.fd), &b.sockaddr)
	if errno == 0 {
		s.ready &^= erred
		return false
	}
	s.ready |= erred | canRead // there may be more
	c.Err, c.Peer = errno, b.peer(int(s.fd))
	return true
}

// peer lends the address that the last call has stored.
func (b *Backend) peer(fd int) *backend.Addr {
	var peer *backend.Addr
	if b.npeers < len(b.peers) {
		peer = &b.peers[b.npeers]
		b.npeers++
	} else {
		peer = new(backend.Addr) // of a Submit: Wait keeps to what there is
	}
	b.sockaddr.Decode(peer, fd)
	return peer
}

// recvNow is a RecvFrom with Now.
func (b *Backend) recvNow(s *slot, op *backend.Op, c *backend.Completion) {
	switch {
	case op.Buf != nil && len(op.Buf) == 0:
		*c = backend.Completion{Err: unix.EINVAL}
	case !b.recvFrom(s, op, c):
		c.Err = backend.ErrAgain
	}
	c.Op = op
}

func (b *Backend) serveRecvFrom(s *slot) {
	for i := 0; i < datagramsPerWait && b.room() && b.npeers < len(b.peers) && arenaSize-b.lent >= readSize; i++ {
		var c backend.Completion
		if !b.recvFrom(s, s.rd, &c) {
			return
		}
		if c.Err != nil || s.rd.Flags&backend.Multi == 0 || s.rd.Buf != nil {
			b.end(&s.rd, c)
			return
		}
		c.Op, c.More = s.rd, true
		b.emit(c)
	}
}

// sendTo tries to send a datagram.
func (b *Backend) sendTo(s *slot, op *backend.Op) (int, syscall.Errno) {
	if op.Addr == nil {
		return 0, unix.EINVAL
	}
	if s.class != sys.Socket {
		return 0, unix.ENOTSOCK
	}
	if err := b.sockaddr.Encode(op.Addr, s.flags&ipv6 != 0, int(s.fd)); err != nil {
		return 0, asErrno(err)
	}
	b.calls.Write++
	n, errno := sys.SendTo(int(s.fd), op.Vec, &b.sockaddr, &b.vector)
	if errno == unix.EAGAIN {
		s.ready &^= canWrite
	}
	return n, errno
}

func (b *Backend) serveSendTo(s *slot) {
	n, errno := b.sendTo(s, s.wr)
	switch errno {
	case unix.EAGAIN:
	case 0:
		b.end(&s.wr, backend.Completion{N: n})
	default:
		b.end(&s.wr, backend.Completion{Err: errno})
	}
}

// Source returns the address from which something would be sent; see
// backend.Router.
func (b *Backend) Source(to netip.Addr) (netip.Addr, bool) { return sys.Source(to) }

// Group puts a handle into a multicast group; see backend.Multicaster.
func (b *Backend) Group(h backend.Handle, group netip.Addr, device string, join bool) error {
	s, err := b.own(h)
	if err != nil {
		return err
	}
	return sys.Group(int(s.fd), group, device, join)
}
