//go:build !linux

package portable

import (
	"net"
	"net/netip"

	"github.com/weir-io/weir/internal/backend"
)

// infos is what can be told of a datagram here.
const infos backend.Infos = 0

// linuxOptions says that the options of datagrams that only Linux has can be set here.
const linuxOptions = false

type control struct{}

func prepareInfo(int, *backend.Spec) {}

func receiveInfo(*net.UDPConn, []byte, *control, *backend.PacketInfo) (int, netip.AddrPort, error) {
	return 0, netip.AddrPort{}, backend.ErrUnsupported
}

func sendInfo(*net.UDPConn, *backend.Packet, *control) (int, error) {
	return 0, backend.ErrUnsupported
}
