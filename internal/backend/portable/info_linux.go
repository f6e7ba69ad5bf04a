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

// mayDontFragment says that DontFragment can be set here.
const mayDontFragment = true

// control is memory for control messages.
type control struct {
	send    sys.SendControl
	receive [32]uint64
}

func prepareInfo(fd int, spec *backend.Spec) {
	s := *spec
	s.Coalesce = false // package net takes one datagram a call
	sys.PrepareInfo(fd, &s)
}

func receiveInfo(c *net.UDPConn, buf []byte, k *control, info *backend.PacketInfo) (int, netip.AddrPort, error) {
	oob := unsafe.Slice((*byte)(unsafe.Pointer(&k.receive)), int(unsafe.Sizeof(k.receive)))
	n, used, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
	if err == nil {
		sys.TellInfo(oob[:used], info)
	}
	return n, from, err
}

func sendInfo(c *net.UDPConn, p *backend.Packet, k *control) (int, error) {
	n, err := k.send.Ask(p)
	if err != nil {
		return 0, err
	}
	n, _, err = c.WriteMsgUDPAddrPort(p.Data, k.send.Bytes(n), p.To.IP)
	return n, err
}
