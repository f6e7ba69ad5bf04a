package portable

import (
	"net"
	"net/netip"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// infos is what can be told of a datagram here.
const infos = backend.InfoLocal | backend.InfoTraffic | backend.InfoDropped | backend.InfoTime

// linuxOptions says that the options of datagrams that only Linux has can be set here.
const linuxOptions = true

// control is memory for control messages.
type control struct {
	send    sys.SendControl
	receive [32]uint64
}

func prepareInfo(fd int, spec *backend.Spec) {
	s := *spec
	s.Coalesce = false // package net takes one datagram a call
	sys.PrepareInfo(fd, &s)
	if spec.Family == backend.Inet {
		_ = sys.OwnGroups(fd, spec) // without it there is more to ignore
	}
}

func receiveInfo(c *net.UDPConn, buf []byte, k *control, info *backend.PacketInfo) (int, netip.AddrPort, error) {
	oob := unsafe.Slice((*byte)(unsafe.Pointer(&k.receive)), int(unsafe.Sizeof(k.receive)))
	n, used, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		return 0, from, err // package net has -1 bytes after a refusal
	}
	sys.TellInfo(oob[:used], info)
	return n, from, nil
}

func sendInfo(c *net.UDPConn, p *backend.Packet, k *control) (int, error) {
	n, err := k.send.Ask(p)
	if err != nil {
		return 0, err
	}
	to := p.To.IP
	if p.ToPeer {
		to = netip.AddrPort{} // package net wants none on a connected socket
	}
	n, _, err = c.WriteMsgUDPAddrPort(p.First(), k.send.Bytes(n), to)
	return n, err
}

// Group puts a handle into a multicast group; see backend.Multicaster.
func (b *Backend) Group(h backend.Handle, group, source netip.Addr, device string, join bool) error {
	return b.onDescriptor(h, func(fd int) error { return sys.Group(fd, group, source, device, join) })
}

// GroupDevice chooses the device by which a handle sends to groups; see
// backend.Multicaster.
func (b *Backend) GroupDevice(h backend.Handle, device string) error {
	return b.onDescriptor(h, func(fd int) error { return sys.GroupDevice(fd, device) })
}

// onDescriptor calls f with a datagram handle's descriptor.
func (b *Backend) onDescriptor(h backend.Handle, f func(fd int) error) error {
	s, err := b.Socket(h)
	if err != nil {
		return err
	}
	var result error
	if err := s.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return errno(err)
	}
	return result
}
