package main

import (
	"net/netip"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/relay"
)

// layeredWay is a flow's way through a proxy with layers on it: the datagrams pass them
// before the association takes them, and the answers after it gave them.
//
//	flow ──▶ layeredWay, the protocol on top ──▶ layers ──▶ wayCarrier ──▶ association
type layeredWay struct {
	f    *relay.PacketFlow
	to   weir.PacketAddr // the target, which for the layers is the peer; a name is a path
	way  *endpoint.PacketWay
	feed *weir.PacketFeed
	top  *weir.PacketEndpoint
}

// wayCarrier is a layeredWay as what is below the layers.
type wayCarrier layeredWay

// newWay makes the way of a flow to e through its proxy.
func (a *packetApp) newWay(f *relay.PacketFlow, e *endpoint.Endpoint, associate func(proxy.AssociationConfig) *endpoint.PacketWay) (relay.PacketPath, error) {
	layers, err := e.MakePacketLayers(nil) // they are made already
	if err != nil {
		return nil, err
	}
	c := proxy.AssociationConfig{
		Received: func(data []byte, _ netip.AddrPort) { f.Received(data) },
		Trouble:  f.Failing,
		Lost: func(err error) {
			if err != nil {
				f.Failed(err)
			}
		},
	}
	if len(layers) == 0 {
		return associate(c), nil
	}
	w := &layeredWay{f: f}
	if to, err := netip.ParseAddrPort(e.PacketTarget()); err == nil {
		w.to.IP = to
	} else {
		w.to.Path = e.PacketTarget()
	}
	w.top, err = packet.Stack(a.loop, func(lowest weir.PacketProtocol) (*weir.PacketEndpoint, error) {
		feed, err := a.loop.CarryPackets((*wayCarrier)(w), lowest)
		if err != nil {
			return nil, err
		}
		w.feed = feed
		return feed.Endpoint(), nil
	}, w, layers)
	if err != nil {
		return nil, err
	}
	c.Received = func(data []byte, _ netip.AddrPort) { w.feed.Deliver(data, w.to) }
	w.way = associate(c)
	w.feed.Begin()
	return w, nil
}

// Send implements relay.PacketPath.
func (w *layeredWay) Send(p []byte) error { return w.top.SendTo(p, w.to) }

// Close implements relay.PacketPath: what the layers hold still goes out.
func (w *layeredWay) Close() { _ = w.top.Close() } // nil on its own loop

// EndpointMade implements weir.PacketProtocol.
func (w *layeredWay) EndpointMade(*weir.PacketEndpoint) {}

// PacketReceived implements weir.PacketProtocol.
func (w *layeredWay) PacketReceived(p []byte, _ weir.PacketAddr) { w.f.Received(p) }

// PacketFailed implements weir.PacketFailer.
func (w *layeredWay) PacketFailed(err error, _ weir.PacketAddr) { w.f.Failing(err) }

// EndpointLost implements weir.PacketProtocol: a flow that has not ended learns why.
func (w *layeredWay) EndpointLost(err error) {
	if err != nil {
		w.f.Failed(err)
	}
}

// SendTo implements weir.PacketCarrier.
func (w *wayCarrier) SendTo(p []byte, _ weir.PacketAddr) (bool, error) { return true, w.way.Send(p) }

// PauseReading implements weir.PacketCarrier: the endpoint drops what it has no room for.
func (w *wayCarrier) PauseReading() {}

// ResumeReading implements weir.PacketCarrier.
func (w *wayCarrier) ResumeReading() {}

// Close implements weir.PacketCarrier.
func (w *wayCarrier) Close(bool) {
	if w.way != nil {
		w.way.Close()
	}
	w.feed.Closed(nil)
}
