package contract

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/packet"
)

// TestConnectPacket: a connected endpoint talks with its peer alone, through layers too,
// knows its own address, and hears that its peer refuses, on every backend (R50).
func TestConnectPacket(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		for _, network := range []string{"udp4", "udp6", "unixgram"} {
			t.Run(network, func(t *testing.T) {
				l := mk()
				if network == "udp6" && l.Backend().Name == "sim" {
					t.Skip("the simulated host has no IPv6 address")
				}
				server, other := &packets{}, &packets{}
				se, oe := endpoint(t, l, network, server), endpoint(t, l, network, other)
				server.on = func(p []byte, from weir.PacketAddr) {
					if err := se.SendTo(append([]byte("re:"), p...), from); err != nil {
						t.Error(err)
					}
				}
				for _, layered := range []bool{false, true} {
					p := &packets{}
					var layers []packet.Layer
					if layered {
						layers = []packet.Layer{packet.Fault(packet.FaultConfig{Seed: 1, Out: packet.Faults{Duplicate: 1}})}
					}
					e, err := packet.Stack(l, func(lowest weir.PacketProtocol) (*weir.PacketEndpoint, error) {
						return l.ConnectPacket(network, se.Local().String(), lowest)
					}, p, layers)
					if err != nil {
						t.Fatal(err)
					}
					if e.Peer() != se.Local() || e.Local() == (weir.PacketAddr{}) || network == "udp4" && e.Local().IP.Addr().IsUnspecified() {
						t.Errorf("from %v to %v, not %v", e.Local(), e.Peer(), se.Local())
					}
					want := 2
					if layered {
						want = 4
					}
					had := len(server.got)
					for _, err := range []error{e.Send([]byte("a")), e.SendTo([]byte("b"), se.Local())} {
						if err != nil {
							t.Fatal(err)
						}
					}
					_ = oe.SendTo([]byte("forged"), e.Local()) // on UNIX sockets it fails
					turns(t, l, "answers", func() bool { return len(p.got) == want })
					for _, from := range p.from {
						if from != se.Local() {
							t.Errorf("%v has answered", from)
						}
					}
					if n := len(server.got) - had; n != want {
						t.Errorf("%d datagrams arrived", n)
					}
					if fields := l.Backend().Packets; network != "unixgram" && fields.Traffic {
						if err := e.SendInfo([]byte("c"), se.Local(), &weir.PacketInfo{Traffic: 0xb8, HasTraffic: true}); err != nil {
							t.Error(err)
						}
						turns(t, l, "an answer", func() bool { return len(p.got) == want+want/2 })
					}
					if err := e.SendTo([]byte("x"), oe.Local()); err == nil {
						t.Error("it sends to others")
					}
					e.Abort()
				}
				if err := se.Send([]byte("x")); !errors.Is(err, syscall.ENOTCONN) || se.Peer() != (weir.PacketAddr{}) {
					t.Errorf("an endpoint without a peer sends: %v", err)
				}
				p := &packets{}
				e, err := l.ConnectPacket(network, se.Local().String(), p)
				if err != nil {
					t.Fatal(err)
				}
				turns(t, l, "it", func() bool { return p.e != nil })
				peer := se.Local()
				se.Abort()
				for range 2 { // what an earlier datagram caused keeps no later one
					err = e.Send([]byte("late"))
				}
				if network == "unixgram" {
					if !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("to a UNIX peer that is gone: %v", err)
					}
					return
				}
				if err != nil {
					t.Errorf("to a UDP peer that is gone: %v", err)
				}
				turns(t, l, "a refusal", func() bool { return len(p.failed) > 0 })
				if !errors.Is(p.failed[0], syscall.ECONNREFUSED) || p.about[0] != peer {
					t.Errorf("%v, about %v", p.failed[0], p.about[0])
				}
			})
		}
	})
}

// TestConnectPacketArguments: what cannot be connected to is an error of the call.
func TestConnectPacketArguments(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		l := mk()
		for _, c := range []struct {
			network, address string
			opt              weir.ConnectPacketOption
		}{
			{"tcp", "127.0.0.1:9", nil},
			{"udp", ":9", nil},
			{"udp", "127.0.0.1:0", nil},
			{"udp", "0.0.0.0:9", nil},
			{"udp6", "127.0.0.1:9", nil},
			{"udp", "127.0.0.1:9", weir.WithLocalAddr(netip.MustParseAddrPort("[::1]:0"))},
			{"unixgram", "", nil},
			{"unixgram", "@weir no one is here", nil},
		} {
			var opts []weir.ConnectPacketOption
			if c.opt != nil {
				opts = append(opts, c.opt)
			}
			e, err := l.ConnectPacket(c.network, c.address, &packets{}, opts...)
			op, ok := errors.AsType[*net.OpError](err)
			if !ok || e != nil || op.Op != "dial" {
				t.Errorf("%s %q: %v", c.network, c.address, err)
			}
		}
		if l.Backend().Name == "sim" {
			return
		}
		e, err := l.ConnectPacket("udp", "127.0.0.1:9", &packets{}, weir.WithLocalAddr(netip.MustParseAddrPort("127.0.0.5:0")))
		if err != nil || e.Local().IP.Addr().String() != "127.0.0.5" {
			t.Errorf("from %v, %v", e.Local(), err)
		}
	})
}
