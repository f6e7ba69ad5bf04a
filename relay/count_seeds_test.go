package relay_test

import (
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// TestPacketsCountsSeeds: whatever the network and the system do, and whenever flows end or
// the relay is closed, what was received was passed on or lost, each way, in every flow and
// in all.
func TestPacketsCountsSeeds(t *testing.T) {
	weirtest.Seeds(t, 200, func(t *testing.T, s *weirtest.Sim) {
		r := rand.New(rand.NewPCG(s.Seed(), 3))
		a := netip.MustParseAddr
		clients, servers := s.Host("client", a("10.0.0.1"), a("10.0.1.1")).Loop(), s.Host("server", four3, four4).Loop()
		middle := s.Host("relay", a("10.0.0.2")).Loop()
		known := &names{addrs: []netip.Addr{four4, four3}}
		if r.IntN(4) == 0 {
			known.addrs, known.err = nil, syscall.ETIMEDOUT
		}
		check := func(what string, c relay.PacketCount) {
			for side := range c.Packets {
				if c.Received[side] != c.Packets[side]+c.Lost[side].Sum() || c.Packets[side] < 0 || c.Bytes[side] < 0 {
					t.Errorf("%s: %+v", what, c)
				}
			}
		}
		ended := int64(0)
		c := relay.PacketConfig{
			Targets: [][]string{{"10.0.0.3:7"}, {"10.0.0.4:7"}, {"name.test:7"}, {"10.0.0.4:7", "10.0.0.3:7"}}[r.IntN(4)], Resolver: known,
			Idle: time.Duration(1+r.IntN(5)) * time.Second, Most: 1 + r.IntN(6),
			Ended: func(_ weir.PacketAddr, _ string, c relay.PacketCount) {
				ended += c.Received[relay.A]
				check("a flow", c)
			},
			UpOptions: []weir.PacketOption{weir.WithMaxDatagram(600)},
		}
		c.Pick = func(weir.PacketAddr) (int, func(error)) { return r.IntN(len(c.Targets)), nil }
		if r.IntN(2) == 0 { // layers that double, keep and refuse datagrams
			layer := packet.Fault(packet.FaultConfig{Seed: s.Seed(), Out: packet.Faults{Duplicate: 0.2, Latency: 20 * time.Millisecond}})
			c.UpListen = func(_ *relay.PacketFlow, network, at string, p weir.PacketProtocol, opts ...weir.PacketOption) (*weir.PacketEndpoint, error) {
				return packet.Listen(middle, network, at, p, []packet.Layer{layer}, opts...)
			}
		}
		var said said
		if r.IntN(2) == 0 {
			c.Full, c.Dropped = said.full, said.dropped
		}
		lost := 0
		c.Lost = func(error) { lost++ }
		p, err := relay.NewPackets(middle, "udp4", "10.0.0.2:53", c)
		if err != nil {
			t.Skip(err) // the world has drawn that
		}
		server := &box{answer: true}
		server.e, err = servers.ListenPacket("udp4", "10.0.0.3:7", server) // 10.0.0.4 refuses
		if err != nil {
			t.Skip(err)
		}
		var all []*box
		for i := range 8 {
			b := &box{}
			if b.e, err = clients.ListenPacket("udp4", []string{"10.0.0.1:0", "10.0.1.1:0"}[i%2], b); err == nil {
				all = append(all, b)
			}
		}
		for range 60 {
			if len(all) == 0 {
				break
			}
			i := r.IntN(len(all))
			for range 1 + r.IntN(6) {
				_ = all[i].e.SendTo(make([]byte, r.IntN(700)), p.Local()) // what fails does not come
			}
			if r.IntN(20) == 0 {
				all[i].e.Abort()
				all = append(all[:i], all[i+1:]...)
			}
			if err := s.RunFor(time.Duration(r.ExpFloat64() * float64(200*time.Millisecond))); err != nil {
				t.Fatal(err)
			}
		}
		if c.Dropped != nil {
			s.HealAll()
			if err := s.RunFor(30 * time.Second); err != nil {
				t.Fatal(err)
			}
			if said.lost != p.Total().Lost {
				t.Errorf("while it runs it tells of %+v, and has lost %+v", said.lost, p.Total().Lost)
			}
		}
		p.Close()
		s.Until("the end", func() bool { return lost == 1 })
		if err := s.RunFor(time.Second); err != nil {
			t.Fatal(err)
		}
		check("in all", p.Total())
		if n := p.Total().Received[relay.A]; ended > n {
			t.Errorf("the flows have received %d, the relay %d", ended, n)
		}
	}, weirtest.WithSwarm())
}
