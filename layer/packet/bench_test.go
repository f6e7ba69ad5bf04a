package packet_test

import (
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/packet"
)

// BenchmarkLayer is what a layer costs a datagram that passes up and one that passes
// down, without a socket.
func BenchmarkLayer(b *testing.B) {
	for _, c := range []struct {
		name   string
		layers []packet.Layer
	}{
		{"none", nil},
		{"plain", []packet.Layer{newPlain}},
		{"three plain", []packet.Layer{newPlain, newPlain, newPlain}},
		{"loss", []packet.Layer{packet.Fault(packet.FaultConfig{In: packet.Faults{Loss: 1e-9}, Out: packet.Faults{Loss: 1e-9}})}},
		{"ratelimit", []packet.Layer{packet.RateLimit(layer.Rate{PerSecond: 1 << 50}, layer.Rate{PerSecond: 1 << 50}, nil)}},
		{"limit", []packet.Layer{packet.Limit(packet.LimitConfig{LimitConfig: layer.LimitConfig{Total: 9}})}},
	} {
		b.Run(c.name, func(b *testing.B) {
			l, err := weir.NewLoop()
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			var feed *weir.PacketFeed
			p := &pinger{}
			_, err = packet.Stack(l, func(lowest weir.PacketProtocol) (*weir.PacketEndpoint, error) {
				feed, err = l.CarryPackets(drain{}, lowest)
				return feed.Endpoint(), err
			}, p, c.layers)
			if err != nil {
				b.Fatal(err)
			}
			feed.Begin()
			data, from := make([]byte, 64), weir.PacketAddr{Path: "x"}
			b.ReportAllocs()
			for b.Loop() {
				feed.Deliver(data, from)
			}
		})
	}
}

// drain is a carrier that takes everything.
type drain struct{}

func (drain) SendTo([]byte, weir.PacketAddr) (bool, error) { return true, nil }
func (drain) PauseReading()                                {}
func (drain) ResumeReading()                               {}
func (drain) Close(bool)                                   {}
