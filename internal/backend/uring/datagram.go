//go:build linux

package uring

import (
	"net/netip"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// Datagrams are sent by a call of their own, which hardly ever has to wait, and
// taken by such calls once a poll says that there are some: then as many as
// there are, up to datagramsMax. Only a call like that can also read the error
// queue, which knows whom an error is about.

const (
	datagramsMax = 32      // that one socket hands out per Wait
	datagramSize = 1 << 16 // no datagram is longer
	packetsSize  = 4 * datagramSize
)

// packets is the memory of the datagrams that one Wait lends: each is received
// into scratch and then put behind the last one.
type packets struct {
	scratch []byte
	mem     []byte
	used    int
}

// lend returns a copy of p that lasts until the next Wait.
func (m *packets) lend(p []byte) []byte {
	if len(m.mem)-m.used < len(p) {
		m.mem, m.used = make([]byte, packetsSize), 0 // what is out stays with its borrowers
	}
	q := m.mem[m.used : m.used+len(p) : m.used+len(p)]
	m.used += copy(q, p)
	return q
}

// recvFrom tries to take a datagram, or what the network said of one. It
// returns false where there is neither.
func (b *Backend) recvFrom(op *backend.Op, c *backend.Completion) bool {
	errno := b.take(op, c)
	if errno == 0 {
		return true
	}
	// The kernel tells whoever calls first that there is an error, but only the
	// queue tells whom it is about.
	fd := int(op.Handle)
	b.stats.Calls++
	if e := b.errors.RecvError(fd, &b.sockaddr); e != 0 {
		c.Err, c.Peer = e, b.lendPeer(fd)
		return true
	}
	c.Err = errno
	return errno != syscall.EAGAIN
}

// take tries to take a datagram.
func (b *Backend) take(op *backend.Op, c *backend.Completion) syscall.Errno {
	*c = backend.Completion{Op: op}
	buf := op.Buf
	if buf == nil {
		if b.packets.scratch == nil {
			b.packets.scratch = make([]byte, datagramSize)
		}
		buf = b.packets.scratch
		if op.Max > 0 {
			buf = buf[:min(len(buf), int(op.Max))]
		}
	}
	b.stats.Calls++
	n, errno := sys.RecvFrom(int(op.Handle), buf, &b.sockaddr)
	if errno != 0 {
		return errno
	}
	c.Truncated = n > len(buf)
	c.N = min(n, len(buf))
	c.Buf = buf[:c.N:c.N]
	if op.Buf == nil {
		c.Buf = b.packets.lend(c.Buf)
	}
	c.Peer = b.lendPeer(int(op.Handle))
	return 0
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

// more adds to done, whose n-th entry is next, the other datagrams of the
// socket that the last entry is about. Errors are left to the next poll.
func (b *Backend) more(done []backend.Completion, n int) int {
	last := &done[n-1]
	if last.Op.Kind != backend.RecvFrom || !last.More || last.Op.State != queued {
		return 0
	}
	op, first := last.Op, n
	for ; n < len(done) && n-first < datagramsMax-1; n++ {
		// An error is told again by the poll that comes next: the error queue
		// still has it.
		if b.take(op, &done[n]) != 0 {
			done[n] = backend.Completion{}
			break
		}
		done[n].More = true
	}
	return n - first
}

// sendTo tries to send a datagram. It returns false where that has to wait.
func (b *Backend) sendTo(op *backend.Op, c *backend.Completion) bool {
	d := b.detail(op.Handle)
	if err := b.sockaddr.Encode(op.Addr, d != nil && d.ipv6, int(op.Handle)); err != nil {
		*c = backend.Completion{Op: op, Err: err}
		return true
	}
	b.stats.Calls++
	n, errno := sys.SendTo(int(op.Handle), op.Vec, &b.sockaddr, &b.vector)
	if errno == syscall.EAGAIN {
		return false
	}
	*c = backend.Completion{Op: op, N: n, Err: failed(errno)}
	return true
}

// Source returns the address from which something would be sent; see
// backend.Router.
func (b *Backend) Source(to netip.Addr) (netip.Addr, bool) { return sys.Source(to) }

// Group puts a handle into a multicast group; see backend.Multicaster.
func (b *Backend) Group(h backend.Handle, group netip.Addr, device string, join bool) error {
	if b.class(h) == notOpen {
		return syscall.EBADF
	}
	return sys.Group(int(h), group, device, join)
}
