//go:build linux

package uring

import (
	"net/netip"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// Datagrams are sent by calls of their own, which hardly ever have to wait, and
// taken by such calls once a poll says that there are some: each takes as many as
// there are, up to datagramsMax. Only a call like that can also read the error
// queue, which knows whom an error is about.

const datagramsMax = 32 // that one socket hands out per Wait

// batch is where the datagrams go that one call takes beside the first.
type batch struct {
	n    int // that are there after the first
	done [datagramsMax]backend.Completion
}

// recvFrom tries to take a datagram, or what the network said of one. It
// returns false where there is neither. Others that came by the same call are
// left for more.
func (b *Backend) recvFrom(op *backend.Op, c *backend.Completion, most int) bool {
	if b.inbox == nil {
		b.inbox = new(sys.Inbox)
	}
	fd := int(op.Handle)
	b.stats.Calls++
	n, errno := b.inbox.Receive(fd, op, b.taken.done[:max(1, min(most, datagramsMax))])
	if errno == 0 {
		*c, b.taken.n = b.taken.done[0], n-1
		return true
	}
	*c = backend.Completion{Op: op}
	// The kernel tells whoever calls first that there is an error, but only the
	// queue tells whom it is about.
	b.stats.Calls++
	if e, mtu := b.errors.RecvError(fd, &b.sockaddr); e != 0 {
		c.N, c.Err, c.Peer = mtu, e, b.lendPeer(fd)
		return true
	}
	c.Err = errno
	return errno != syscall.EAGAIN
}

// lendPeer lends the address that the last call has stored.
func (b *Backend) lendPeer(fd int) *backend.Addr {
	if b.peerUsed == len(b.peers) {
		b.peers = append(b.peers, new(backend.Addr))
	}
	peer := b.peers[b.peerUsed]
	b.peerUsed++
	b.sockaddr.Decode(peer, fd)
	return peer
}

// more adds to done the datagrams that came with the last result.
func (b *Backend) more(done []backend.Completion) int {
	n := copy(done, b.taken.done[1:1+b.taken.n])
	for i := range n {
		done[i].More = true
	}
	b.taken.n = 0
	return n
}

// sendTo tries to send datagrams. It returns false where that has to wait.
func (b *Backend) sendTo(op *backend.Op, c *backend.Completion) bool {
	d := b.detail(op.Handle)
	six, fd := d != nil && d.ipv6, int(op.Handle)
	var (
		n   int
		err error
	)
	if op.Packets != nil {
		if b.outbox == nil {
			b.outbox = new(sys.Outbox)
		}
		b.stats.Calls++
		n, err = b.outbox.Send(fd, six, *op.Packets)
	} else if err = b.sockaddr.Encode(op.Addr, six, fd); err == nil {
		b.stats.Calls++
		var errno syscall.Errno
		n, errno = sys.SendTo(fd, op.Vec, &b.sockaddr, &b.vector)
		err = failed(errno)
	}
	if err == syscall.EAGAIN { //nolint:errorlint // as the calls return it
		return false
	}
	*c = backend.Completion{Op: op, N: n, Err: err}
	return true
}

// Source returns the address from which something would be sent; see
// backend.Router.
func (b *Backend) Source(to netip.Addr) (netip.Addr, bool) { return sys.Source(to) }

// Group puts a handle into a multicast group; see backend.Multicaster.
func (b *Backend) Group(h backend.Handle, group, source netip.Addr, device string, join bool) error {
	if b.class(h) == notOpen {
		return syscall.EBADF
	}
	return sys.Group(int(h), group, source, device, join)
}

// GroupDevice chooses the device by which a handle sends to groups; see backend.Multicaster.
func (b *Backend) GroupDevice(h backend.Handle, device string) error {
	if b.class(h) == notOpen {
		return syscall.EBADF
	}
	return sys.GroupDevice(int(h), device)
}

// Socket gives access to a handle's socket; see backend.Controller.
func (b *Backend) Socket(h backend.Handle) (backend.Socket, error) {
	if b.class(h) == notOpen {
		return nil, syscall.EBADF
	}
	return sys.OptionsOf(h), nil
}
