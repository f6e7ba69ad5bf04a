package sim

import (
	"errors"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// sizes is a protocol that counts datagrams by their size, and keeps what failed.
type sizes struct {
	came   map[int]int
	failed []error
}

func (p *sizes) EndpointMade(*weir.PacketEndpoint) {}

func (p *sizes) PacketReceived(b []byte, _ weir.PacketAddr) { p.came[len(b)]++ }

func (p *sizes) PacketFailed(err error, _ weir.PacketAddr) { p.failed = append(p.failed, err) }

func (p *sizes) EndpointLost(error) {}

// TestLinkMTU: a datagram that is longer than a link between hosts takes goes in fragments, each
// of which can be lost, or, with WithDontFragment, not at all: the first that was tried is lost
// and told of, those after it are refused. Within a host there is no such link (R50).
func TestLinkMTU(t *testing.T) {
	const mtu, sent = 1000, 400
	play := func(drop float64, whole bool) (server, client *sizes, refused int) {
		s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{MTU: mtu, Drop: drop}))
		server, client = &sizes{came: map[int]int{}}, &sizes{came: map[int]int{}}
		listen := func(host string, p *sizes, whole bool) *weir.PacketEndpoint {
			l, at := s.Host(host).Loop(), s.Host(host).Addr(7000)
			var (
				e   *weir.PacketEndpoint
				err error
			)
			if whole {
				e, err = l.ListenPacket("udp4", at, p, weir.WithDontFragment())
			} else {
				e, err = l.ListenPacket("udp4", at, p)
			}
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		to, from := listen("server", server, false).Local(), listen("client", client, whole)
		send := func(to weir.PacketAddr, n int) {
			if err := from.SendTo(make([]byte, n), to); err != nil {
				var long *weir.MTUError
				if !errors.As(err, &long) {
					t.Error(err)
				}
				refused++
			}
			if err := s.Run(nil); err != nil {
				t.Fatal(err)
			}
		}
		for range sent {
			send(to, mtu-28)
			send(to, mtu-27)
			send(to, 4*mtu)
		}
		send(from.Local(), 4*mtu) // its own host
		return server, client, refused
	}

	server, client, refused := play(0, false)
	if server.came[mtu-28] != sent || server.came[mtu-27] != sent || server.came[4*mtu] != sent || refused+len(client.failed) != 0 {
		t.Errorf("in fragments %v came of %d each, %d refused, %v", server.came, sent, refused, client.failed)
	}
	server, client, refused = play(0, true)
	if server.came[mtu-28] != sent || len(server.came) != 1 || refused != 2*sent-1 || client.came[4*mtu] != 1 {
		t.Errorf("unfragmented %v came, %v at home, %d refused of %d", server.came, client.came, refused, 2*sent)
	}
	var long *weir.MTUError
	if len(client.failed) != 1 || !errors.As(client.failed[0], &long) || long.MTU != mtu {
		t.Errorf("failed: %v, want one that a link of %d bytes refused", client.failed, mtu)
	}
	server, _, _ = play(0.2, false)
	whole, two, five := server.came[mtu-28], server.came[mtu-27], server.came[4*mtu]
	if whole <= two || two <= five || five == 0 {
		t.Errorf("of %d datagrams in 1, 2 and 5 fragments %d, %d and %d came", sent, whole, two, five)
	}
}
