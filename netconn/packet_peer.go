package netconn

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/zone"
)

// ConnectPacket is Loop.ConnectPacket with a PacketConn, which is a net.Conn too: Read and
// Write are for the peer, and refusals by its host are told. It belongs to the loop's
// goroutine, or to anyone while the loop does not run; see Call.
func ConnectPacket(l *weir.Loop, network, address string, opts ...weir.ConnectPacketOption) (*PacketConn, error) {
	c := newPacketConn(l)
	e, err := l.ConnectPacket(network, address, (*packetSide)(c), opts...)
	if err != nil {
		return nil, err
	}
	c.e, c.local, c.peer = e, e.Local(), e.Peer()
	return c, nil
}

var _ net.Conn = (*PacketConn)(nil)

func (c *PacketConn) connected() bool { return c.peer != weir.PacketAddr{} }

// isPeer reports whether to is the peer, as either may be written.
func (c *PacketConn) isPeer(to weir.PacketAddr) bool {
	if to == c.peer {
		return true
	}
	ip := to.IP
	return ip.IsValid() && zone.NamedPort(netip.AddrPortFrom(ip.Addr().Unmap(), ip.Port())) == c.peer.IP
}

// RemoteAddr is the peer that the conn is connected to (ConnectPacket); nil if it has none.
func (c *PacketConn) RemoteAddr() net.Addr {
	if !c.connected() {
		return nil
	}
	return c.peer.NetAddr()
}

// Read is ReadFrom without the address.
func (c *PacketConn) Read(p []byte) (int, error) {
	n, _, err := c.ReadPacketInfo(p, nil)
	return n, err
}

// Write sends p as one datagram to the peer. It fails with syscall.EDESTADDRREQ if the conn has
// none. WriteTo and its kin are for the peer too where there is one: any other address is
// net.ErrWriteToConnected.
func (c *PacketConn) Write(p []byte) (int, error) {
	if !c.connected() {
		return 0, c.opError("write", nil, syscall.EDESTADDRREQ)
	}
	return c.WritePacketInfo(p, c.peer, nil)
}

// JoinGroup puts the conn's endpoint into a multicast group, as weir.PacketEndpoint's
// JoinGroup does. It waits for the loop, which has to run, and must not be called on the
// loop's goroutine. Errors are *net.OpError with that method's; weir.ErrLoopClosed if the loop
// is closed first.
func (c *PacketConn) JoinGroup(group netip.Addr, device string) error {
	return c.onLoop(func() error { return c.e.JoinGroup(group, device) })
}

// LeaveGroup undoes JoinGroup, in the same way.
func (c *PacketConn) LeaveGroup(group netip.Addr, device string) error {
	return c.onLoop(func() error { return c.e.LeaveGroup(group, device) })
}

// JoinSource is JoinGroup for what one source sends to the group, as weir.PacketEndpoint's
// JoinSource is.
func (c *PacketConn) JoinSource(group, source netip.Addr, device string) error {
	return c.onLoop(func() error { return c.e.JoinSource(group, source, device) })
}

// LeaveSource undoes JoinSource.
func (c *PacketConn) LeaveSource(group, source netip.Addr, device string) error {
	return c.onLoop(func() error { return c.e.LeaveSource(group, source, device) })
}

// onLoop runs f on the loop's goroutine and waits for it.
func (c *PacketConn) onLoop(f func() error) error {
	_, err := Call(context.Background(), c.loop, func() (struct{}, error) { return struct{}{}, f() })
	return c.setError(err)
}
