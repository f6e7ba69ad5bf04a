package relay_test

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// TestPacketsFromAsked: a relay on every address answers from the one that was asked,
// also a peer that asks several of them from one port, IPv4 and IPv6, on every backend
// that can tell (A4).
func TestPacketsFromAsked(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithErrorHandler(func(err error) { t.Error(err) }))
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			if !l.Backend().Packets.Local {
				t.Skip("the backend does not tell local addresses (BackendInfo.Packets)")
			}
			until := func(what string, cond func() bool) {
				t.Helper()
				weirtest.Until(t, l, what, cond)
			}
			open := func(network, address string, b *box) *box {
				t.Helper()
				if b.e, err = l.ListenPacket(network, address, b); err != nil {
					t.Fatal(err)
				}
				return b
			}
			target := open("udp4", "127.0.0.1:0", &box{answer: true})
			for _, any := range []struct {
				network string
				asked   map[string][]string // by the client's address
			}{
				{"udp4", map[string][]string{"127.0.0.1:0": {"127.0.0.2", "127.0.0.1", "127.0.0.3"}}},
				{"udp", map[string][]string{"127.0.0.1:0": {"127.0.0.3", "127.0.0.2"}, "[::1]:0": {"::1"}}},
			} {
				r, err := relay.NewPackets(l, any.network, ":0", relay.PacketConfig{
					Target:  target.e.Local(),
					Trouble: func(err error, to weir.PacketAddr) { t.Errorf("%v: %v", to, err) },
				})
				if err != nil {
					t.Fatal(err)
				}
				flows := 0
				for local, asked := range any.asked {
					network := "udp4"
					if local[0] == '[' {
						network = "udp6"
					}
					client := open(network, local, &box{})
					for range 3 {
						for _, host := range asked { // before the first answer
							if err := client.e.SendTo([]byte(host), at(host, r.Local())); err != nil {
								t.Fatal(err)
							}
						}
					}
					until("answers", func() bool { return len(client.got) == 3*len(asked) })
					for i, from := range client.from {
						if host := client.got[i][len("re:"):]; from != at(host, r.Local()) {
							t.Errorf("%s: asked at %s, answered from %v", any.network, host, from)
						}
					}
					flows += len(asked)
				}
				if r.Served() != flows || r.Peers() != flows {
					t.Errorf("%d flows, %d now, want %d", r.Served(), r.Peers(), flows)
				}
				r.Close()
			}
		})
	}
}

// at is a host with the port of another address.
func at(host string, like weir.PacketAddr) weir.PacketAddr {
	return weir.PacketAddr{IP: netip.AddrPortFrom(netip.MustParseAddr(host), like.IP.Port())}
}

// TestPacketsAskedLater: the same in a simulated world whose relay has several addresses
// of either family; the target answers late. A peer that is gone loses all its flows, and
// one that asks at ever more addresses the first of them.
func TestPacketsAskedLater(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	a := netip.MustParseAddr
	client := s.Host("client", a("10.0.0.1"), a("fd00::1")).Loop()
	hosts := []netip.Addr{a("10.0.0.2"), a("10.0.0.3"), a("fd00::2"), a("fd00::3")}
	for i := range 20 {
		hosts = append(hosts, a("10.0.1."+strconv.Itoa(1+i)))
	}
	middle := s.Host("relay", hosts...).Loop()
	server := s.Host("server", a("10.0.9.1")).Loop()
	var short []relay.PacketShortage
	r, err := relay.NewPackets(middle, "udp", ":53", relay.PacketConfig{
		Targets: []string{"10.0.9.1:7"}, Idle: time.Minute,
		Full: func(s relay.PacketShortage) { short = append(short, s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	open := func(l *weir.Loop, network, address string) *box {
		b := &box{}
		if b.e, err = l.ListenPacket(network, address, b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	pass := func(d time.Duration) {
		if err := s.RunFor(d); err != nil {
			t.Fatal(err)
		}
	}
	target := open(server, "udp4", "10.0.9.1:7")
	four, six := open(client, "udp4", "10.0.0.1:0"), open(client, "udp6", "[fd00::1]:0")
	ask := func(b *box, host string) {
		if err := b.e.SendTo([]byte(host), at(host, r.Local())); err != nil {
			t.Fatal(err)
		}
	}
	answer := func() { // the last asked first, each with the host that was asked
		pass(time.Second)
		for i := len(target.got) - 1; i >= 0; i-- {
			if err := target.e.SendTo([]byte(target.got[i]), target.from[i]); err != nil {
				t.Fatal(err)
			}
		}
		target.got, target.from = nil, nil
		pass(time.Second)
	}
	for _, host := range []string{"10.0.0.2", "10.0.0.3"} {
		ask(four, host)
	}
	for _, host := range []string{"fd00::2", "fd00::3"} {
		ask(six, host)
	}
	answer()
	for _, b := range []*box{four, six} {
		if len(b.got) != 2 {
			t.Errorf("%d answers", len(b.got))
		}
		for i, from := range b.from {
			if from != at(b.got[i], r.Local()) {
				t.Errorf("asked at %s, answered from %v", b.got[i], from)
			}
		}
	}
	if r.Peers() != 4 {
		t.Errorf("%d flows", r.Peers())
	}

	ask(six, "fd00::3")
	ask(six, "fd00::2")
	pass(time.Second)
	six.e.Abort() // the answers are refused
	answer()
	if r.Peers() != 2 {
		t.Errorf("%d flows after a peer has gone", r.Peers())
	}

	for i := range 15 { // two have flows already, one too many
		ask(four, "10.0.1."+strconv.Itoa(1+i))
	}
	answer()
	if len(short) != 1 || short[0].Evicted != 1 || r.Peers() != 16 || r.Total().Packets != [2]int64{21, 19} {
		t.Errorf("%+v, %d flows, %+v", short, r.Peers(), r.Total())
	}
	served := r.Served()
	ask(four, "10.0.0.3")
	answer()
	if r.Served() != served {
		t.Error("another flow than the eldest has ended")
	}
	ask(four, "10.0.0.2")
	answer()
	if r.Served() != served+1 || len(four.got) != 2+15+2 {
		t.Errorf("%d flows since, %d answers", r.Served()-served, len(four.got))
	}
}
