package contract

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// member is a receiver that answers what comes with its name in front.
type member struct {
	name string
	e    *weir.PacketEndpoint
	got  []string
	from []weir.PacketAddr
}

func (m *member) EndpointMade(e *weir.PacketEndpoint) { m.e = e }
func (m *member) EndpointLost(error)                  {}
func (m *member) PacketReceived(p []byte, from weir.PacketAddr) {
	m.got, m.from = append(m.got, string(p)), append(m.from, from)
	if m.name != "" {
		_ = m.e.SendTo(append([]byte(m.name+":"), p...), from)
	}
}

// wideNetwork is a machine with two links, and with routes for what has no network.
func wideNetwork() []string {
	return []string{
		"link add d0 type veth peer name p0", "link add d1 type veth peer name p1",
		"link set p0 up", "link set d0 up", "link set p1 up", "link set d1 up",
		"addr add 10.9.0.1/24 brd + dev d0", "addr add 10.9.1.1/24 brd + dev d1",
		"-6 addr add fd00:9::1/64 dev d0 nodad",
		"route add default dev d0", "-6 route add ff05::/16 dev d0 table local",
	}
}

// TestRelayToMany: a relay whose target is a group, a broadcast address or this machine
// itself hands on the answers of all who give one, though none comes from the address
// that was asked.
func TestRelayToMany(t *testing.T) {
	inNamespace(t, wideNetwork(), func(t *testing.T, l *weir.Loop, _ *names) {
		group, group6 := netip.MustParseAddr("239.1.2.3"), netip.MustParseAddr("ff05::1:3")
		for _, c := range []struct {
			network, at string // where the members are
			opts        []weir.PacketOption
			target      string // with %d for their port
			members     int
		}{
			{"udp4", "0.0.0.0", []weir.PacketOption{weir.WithGroups("d0", group)}, "239.1.2.3:%d", 2},
			{"udp6", "[::]", []weir.PacketOption{weir.WithGroups("d0", group6)}, "[ff05::1:3]:%d", 2},
			{"udp4", "0.0.0.0", nil, "255.255.255.255:%d", 1},
			{"udp4", "0.0.0.0", nil, "10.9.0.255:%d", 1},
			{"udp4", "0.0.0.0", nil, "10.9.1.255:%d", 1},
			{"udp4", "127.0.0.1", nil, "0.0.0.0:%d", 1},
		} {
			var members []*member
			var port uint16
			for i := range c.members {
				m := &member{name: fmt.Sprint("m", i)}
				e, err := l.ListenPacket(c.network, fmt.Sprintf("%s:%d", c.at, port), m, c.opts...)
				if err != nil {
					t.Fatal(c.target, err)
				}
				members = append(members, m)
				port = e.Local().IP.Port()
			}
			target := fmt.Sprintf(c.target, port)
			r, err := relay.NewPackets(l, "udp4", "127.0.0.1:0", relay.PacketConfig{
				Targets: []string{target}, Trouble: func(err error, to weir.PacketAddr) { t.Error(target, err, to) },
			})
			if err != nil {
				t.Fatal(target, err)
			}
			peer := &member{}
			e, err := l.ListenPacket("udp4", "127.0.0.1:0", peer)
			if err != nil {
				t.Fatal(err)
			}
			for round := 1; round <= 2; round++ {
				if err := e.SendTo([]byte("who"), r.Local()); err != nil {
					t.Fatal(err)
				}
				weirtest.Until(t, l, "answers of all of "+target, func() bool { return len(peer.got) == round*c.members })
			}
			seen := map[string]int{}
			for i, text := range peer.got {
				seen[text]++
				if peer.from[i] != r.Local() {
					t.Errorf("%s: an answer from %v", target, peer.from[i])
				}
			}
			for _, m := range members {
				if seen[m.name+":who"] != 2 {
					t.Errorf("%s: %v", target, seen)
				}
				m.e.Abort()
			}
			r.Close()
			e.Abort()
		}
	})
}

// TestRelayOfGroup: a relay that listens on a group of one link takes what is sent to
// the group there, and not what is sent on another link; the answers go to the sender.
func TestRelayOfGroup(t *testing.T) {
	inNamespace(t, wideNetwork(), func(t *testing.T, l *weir.Loop, _ *names) {
		group := netip.MustParseAddr("239.1.2.3")
		target := &member{name: "re"}
		te, err := l.ListenPacket("udp4", "127.0.0.1:0", target)
		if err != nil {
			t.Fatal(err)
		}
		r, err := relay.NewPackets(l, "udp4", "239.1.2.3:5000", relay.PacketConfig{
			Target: te.Local(), Options: []weir.PacketOption{weir.WithGroups("d1", group)},
			Trouble: func(err error, to weir.PacketAddr) { t.Error(err, to) },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		to := weir.PacketAddr{IP: netip.AddrPortFrom(group, 5000)}
		var peers [2]*member
		var ends [2]*weir.PacketEndpoint
		for i, from := range []string{"10.9.0.1:0", "10.9.1.1:0"} {
			peers[i] = &member{}
			// A group of their own makes them send to groups on that link.
			if ends[i], err = l.ListenPacket("udp4", from, peers[i], weir.WithGroups(fmt.Sprint("d", i), netip.MustParseAddr("239.9.9.9"))); err != nil {
				t.Fatal(err)
			}
		}
		if err := ends[0].SendTo([]byte("elsewhere"), to); err != nil {
			t.Fatal(err)
		}
		if err := ends[1].SendTo([]byte("who"), to); err != nil {
			t.Fatal(err)
		}
		weirtest.Until(t, l, "an answer", func() bool { return len(peers[1].got) > 0 })
		if peers[1].got[0] != "re:who" || peers[1].from[0].IP.Port() != 5000 {
			t.Errorf("%q from %v", peers[1].got[0], peers[1].from[0])
		}
		for _, text := range target.got { // what was sent on the other link was sent first
			if text != "who" {
				t.Errorf("%q from the other link", text)
			}
		}
		if len(peers[0].got) > 0 {
			t.Errorf("%q from another link", peers[0].got)
		}
	})
}
