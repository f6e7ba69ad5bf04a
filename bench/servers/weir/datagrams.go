package main

import (
	"net"
	"net/netip"

	"github.com/weir-io/weir"
	weirrelay "github.com/weir-io/weir/relay"

	"github.com/weir-io/weir/bench/internal/side"
)

// packetEcho sends datagrams back.
type packetEcho struct{ e *weir.PacketEndpoint }

func (p *packetEcho) EndpointMade(e *weir.PacketEndpoint) { p.e = e }

func (p *packetEcho) PacketReceived(data []byte, from weir.PacketAddr) { _ = p.e.SendTo(data, from) }

func (p *packetEcho) EndpointLost(error) {}

func datagrams(g *weir.Group, cfg side.Config) {
	l := g.Loops()[0]
	var at net.Addr
	if cfg.Target != "" {
		target, err := netip.ParseAddrPort(cfg.Target)
		side.Check(err)
		r, err := weirrelay.NewPackets(l, "udp4", cfg.Addr, weirrelay.PacketConfig{Target: weir.PacketAddr{IP: target}})
		side.Check(err)
		at = r.LocalAddr()
	} else {
		e, err := l.ListenPacket("udp4", cfg.Addr, &packetEcho{}, weir.WithSocketBuffers(0, side.Buffers))
		side.Check(err)
		at = e.LocalAddr()
	}
	checkBackend(g, cfg)
	go side.Serve(at.String())
	side.Check(g.Run())
}
