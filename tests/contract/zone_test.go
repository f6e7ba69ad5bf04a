package contract

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/weir-io/weir"
)

// TestConnectPacketZones: a peer whose zone is written as a number, or that has one it does
// not need, is heard as any other (R50).
func TestConnectPacketZones(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		if mk().Backend().Name == "sim" {
			t.Skip("simulated hosts have no zones")
		}
		for _, host := range zoned(t) {
			t.Run(host, func(t *testing.T) {
				l := mk()
				server, client := &packets{}, &packets{}
				se, err := l.ListenPacket("udp6", "["+host+"]:0", server)
				if err != nil {
					t.Skip(err)
				}
				server.on = func(p []byte, from weir.PacketAddr) {
					if err := se.SendTo(p, from); err != nil {
						t.Error(err)
					}
				}
				to := netip.AddrPortFrom(netip.MustParseAddr(host), se.Local().IP.Port())
				e, err := l.ConnectPacket("udp6", to.String(), client)
				if err != nil {
					t.Fatal(err)
				}
				for _, err := range []error{e.Send([]byte("a")), e.SendTo([]byte("b"), weir.PacketAddr{IP: to}), e.SendTo([]byte("c"), e.Peer())} {
					if err != nil {
						t.Error(err)
					}
				}
				turns(t, l, "answers", func() bool { return len(client.got) == 3 })
				for _, from := range client.from {
					if from != e.Peer() {
						t.Errorf("from %v, the peer is %v", from, e.Peer())
					}
				}
			})
		}
	})
}

// zoned are addresses of this machine with zones as numbers.
func zoned(t *testing.T) (all []string) {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Skip(err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if ok && n.IP.To4() == nil && (n.IP.IsLoopback() || n.IP.IsLinkLocalUnicast()) {
				all = append(all, n.IP.String()+"%"+strconv.Itoa(i.Index))
			}
		}
	}
	return all
}
