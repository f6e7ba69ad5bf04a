package epoll

import (
	"net/netip"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
	"golang.org/x/sys/unix"
)

// recvFrom tries to take datagrams, as many as done has room for, or what the
// network said of one, and fills done in but for More. It returns 0 where there is
// neither, and keeps the hints of s up to date. Room for a peer must be there.
func (b *Backend) recvFrom(s *slot, op *backend.Op, done []backend.Completion) int {
	fd := int(s.fd)
	if s.ready&erred != 0 && b.recvError(s, op, &done[0]) {
		return 1
	}
	if b.inbox == nil {
		b.inbox = new(sys.Inbox)
	}
	b.calls.Read++
	n, errno := b.inbox.Receive(fd, op, done)
	switch {
	case errno == unix.EAGAIN:
		s.ready &^= canRead | tail | erred
		return 0
	case errno != 0:
		// The kernel tells whoever calls first that there is an error, but only
		// the queue tells whom it is about.
		if !b.recvError(s, op, &done[0]) {
			done[0] = backend.Completion{Op: op, Err: errno}
		}
		return 1
	case n < min(len(done), sys.InboxBatch) && op.Buf == nil:
		s.ready &^= canRead | tail // the call itself found no more
	}
	return n
}

// recvError takes an entry of the error queue.
func (b *Backend) recvError(s *slot, op *backend.Op, c *backend.Completion) bool {
	b.calls.Read++
	errno, mtu := b.errors.RecvError(int(s.fd), &b.sockaddr)
	if errno == 0 {
		s.ready &^= erred
		return false
	}
	s.ready |= erred | canRead // there may be more
	*c = backend.Completion{Op: op, N: mtu, Err: errno, Peer: b.peer(int(s.fd))}
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
	if op.Buf != nil && len(op.Buf) == 0 {
		*c = backend.Completion{Op: op, Err: unix.EINVAL}
		return
	}
	var one [1]backend.Completion
	if b.recvFrom(s, op, one[:]) == 0 {
		one[0] = backend.Completion{Op: op, Err: backend.ErrAgain}
	}
	*c = one[0]
}

func (b *Backend) serveRecvFrom(s *slot) {
	op := s.rd
	most := 1
	if op.Flags&backend.Multi != 0 && op.Buf == nil {
		most = min(datagramsPerWait, len(b.out)-b.n)
		if b.inbox != nil {
			most = min(most, messagesPerWait-b.inbox.Lent())
		}
	}
	if most <= 0 || b.npeers == len(b.peers) {
		return
	}
	done := b.out[b.n : b.n+most]
	n := b.recvFrom(s, op, done)
	if n == 0 {
		return
	}
	if done[0].Err != nil || op.Flags&backend.Multi == 0 || op.Buf != nil {
		b.end(&s.rd, done[0])
		return
	}
	for i := range n {
		done[i].More = true
	}
	b.n += n
}

// sendTo tries to send datagrams, and returns the bytes of one or the number of
// many.
func (b *Backend) sendTo(s *slot, op *backend.Op) (n int, errno syscall.Errno) {
	if op.Addr == nil && op.Packets == nil {
		return 0, unix.EINVAL
	}
	if s.class != sys.Socket {
		return 0, unix.ENOTSOCK
	}
	if op.Packets != nil {
		if b.outbox == nil {
			b.outbox = new(sys.Outbox)
		}
		b.calls.Write++
		var err error
		if n, err = b.outbox.Send(int(s.fd), s.flags&ipv6 != 0, *op.Packets); err != nil {
			errno = asErrno(err)
		}
	} else {
		if err := b.sockaddr.Encode(op.Addr, s.flags&ipv6 != 0, int(s.fd)); err != nil {
			return 0, asErrno(err)
		}
		b.calls.Write++
		n, errno = sys.SendTo(int(s.fd), op.Vec, &b.sockaddr, &b.vector)
	}
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
func (b *Backend) Group(h backend.Handle, group, source netip.Addr, device string, join bool) error {
	s, err := b.own(h)
	if err != nil {
		return err
	}
	return sys.Group(int(s.fd), group, source, device, join)
}

// GroupDevice chooses the device by which a handle sends to groups; see backend.Multicaster.
func (b *Backend) GroupDevice(h backend.Handle, device string) error {
	s, err := b.own(h)
	if err != nil {
		return err
	}
	return sys.GroupDevice(int(s.fd), device)
}

// Socket gives access to a handle's socket; see backend.Controller.
func (b *Backend) Socket(h backend.Handle) (backend.Socket, error) {
	s, err := b.own(h)
	if err != nil {
		return nil, err
	}
	return sys.OptionsOf(s.fd), nil
}
