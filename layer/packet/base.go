package packet

import (
	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// Layer makes a layer for one endpoint. It is called on the loop's goroutine.
type Layer func(l *weir.Loop) Ends

// Ends are the two ends of a layer. A type that embeds Base has both.
type Ends interface {
	weir.PacketProtocol
	weir.PacketCarrier
	base() *Base
}

// Listen is Loop.ListenPacket with layers on the endpoint, the first nearest the wire,
// which are in force before the first datagram. It returns the endpoint on top, whose
// protocol is p. The options are the socket's.
func Listen(l *weir.Loop, network, address string, p weir.PacketProtocol, layers []Layer, opts ...weir.PacketOption) (*weir.PacketEndpoint, error) {
	return Stack(l, func(lowest weir.PacketProtocol) (*weir.PacketEndpoint, error) {
		return l.ListenPacket(network, address, lowest, opts...)
	}, p, layers)
}

// Stack is Listen with layers on an endpoint that open makes, for the protocol that it
// is given, and whose EndpointMade comes later.
func Stack(l *weir.Loop, open func(weir.PacketProtocol) (*weir.PacketEndpoint, error), p weir.PacketProtocol, layers []Layer) (*weir.PacketEndpoint, error) {
	ends, lowest := make([]Ends, len(layers)), p
	_, infos := p.(weir.PacketInfoReceiver)
	if m, ok := p.(weir.MaybePacketInfoReceiver); ok {
		infos = m.TakesPacketInfo()
	}
	for i := len(layers) - 1; i >= 0; i-- {
		ends[i] = layers[i](l)
		b := ends[i].base()
		b.self, b.infos = ends[i], infos
		lowest = ends[i]
	}
	e, err := open(lowest)
	if err != nil {
		return nil, err
	}
	bottom := e
	for i, end := range ends {
		above := p
		if i+1 < len(ends) {
			above = ends[i+1]
		}
		b := end.base()
		b.below = e
		if b.feed, err = l.CarryPackets(end, above); err != nil {
			bottom.Abort()
			return nil, err
		}
		e = b.feed.Endpoint()
	}
	return e, nil
}

// Base is a layer that passes everything through. A layer embeds it, and has methods of
// its own where it differs: PacketReceived for what comes, SendTo for what leaves. All
// methods belong to the loop's goroutine.
//
// A datagram's weir.PacketInfo passes through by itself, both ways, as
// long as Deliver, or Base's SendTo, is called inside PacketReceived, or SendTo, with the
// same peer. A layer that keeps a datagram for later keeps a copy of Received, or Asked,
// with it, and passes that on with DeliverInfo, or Below's SendInfo.
type Base struct {
	self    Ends // the layer that embeds it
	infos   bool // the protocol on top takes a PacketInfo
	below   *weir.PacketEndpoint
	feed    *weir.PacketFeed
	blocked bool // the endpoint below has asked for a pause

	received, asked passing
}

var (
	_ weir.PacketProtocol          = (*Base)(nil)
	_ weir.PacketInfoReceiver      = (*Base)(nil)
	_ weir.MaybePacketInfoReceiver = (*Base)(nil)
	_ weir.TruncatedReceiver       = (*Base)(nil)
	_ weir.PacketFailer            = (*Base)(nil)
	_ weir.WritePauser             = (*Base)(nil)
	_ weir.Drainer                 = (*Base)(nil)
	_ weir.PacketCarrier           = (*Base)(nil)
	_ weir.PacketInfoCarrier       = (*Base)(nil)
)

// passing is a datagram that is on its way through a layer.
type passing struct {
	peer weir.PacketAddr
	info *weir.PacketInfo // nil: no datagram is, or nothing is known of it
}

// of is what is known of the datagram, if it is the peer's.
func (p *passing) of(peer weir.PacketAddr) *weir.PacketInfo {
	if p.info == nil || p.peer != peer {
		return nil
	}
	return p.info
}

func (b *Base) base() *Base { return b }

// Below is the endpoint below; nil before Listen has opened it.
func (b *Base) Below() *weir.PacketEndpoint { return b.below }

// Upper is the endpoint above.
func (b *Base) Upper() *weir.PacketEndpoint { return b.feed.Endpoint() }

// Deliver hands a datagram to what is above. p is lent until it returns.
func (b *Base) Deliver(p []byte, from weir.PacketAddr) {
	b.feed.DeliverInfo(p, from, b.received.of(from))
}

// DeliverInfo is Deliver with what is known of the datagram; nil: nothing is. Both are
// lent until it returns.
func (b *Base) DeliverInfo(p []byte, from weir.PacketAddr, info *weir.PacketInfo) {
	b.feed.DeliverInfo(p, from, info)
}

// Received is what is known of the datagram that PacketReceived has been called with;
// nil: nothing is. It is lent until PacketReceived returns.
func (b *Base) Received() *weir.PacketInfo { return b.received.info }

// Asked is what else was asked for of the datagram that SendTo has been called with. It
// is lent until SendTo returns; nil outside it.
func (b *Base) Asked() *weir.PacketInfo { return b.asked.info }

// Failed tells the protocol above about a datagram that could not be sent.
func (b *Base) Failed(err error, to weir.PacketAddr) { b.feed.Failed(err, to) }

// Paused reports whether what is above wants no datagrams at present.
func (b *Base) Paused() bool { return b.feed.Paused() }

// Blocked reports whether the endpoint below has asked for a pause. A layer's own
// SendTo takes nothing then.
func (b *Base) Blocked() bool { return b.blocked }

// Drained says that the layer, which is a weir.Holder, keeps nothing any more.
func (b *Base) Drained() { b.feed.Drained() }

// Fail ends what is above with err, as an error of the layer called name, and aborts
// the endpoint below.
func (b *Base) Fail(name string, err error) { b.feed.Fail(&layer.Error{Layer: name, Err: err}) }

// EndpointMade makes the protocol above.
func (b *Base) EndpointMade(*weir.PacketEndpoint) { b.feed.Begin() }

// PacketReceived implements weir.PacketProtocol: the datagram goes up.
func (b *Base) PacketReceived(p []byte, from weir.PacketAddr) { b.Deliver(p, from) }

// PacketInfoReceived implements weir.PacketInfoReceiver: it calls the layer's
// PacketReceived.
func (b *Base) PacketInfoReceived(p []byte, from weir.PacketAddr, info *weir.PacketInfo) {
	outer := b.received
	b.received = passing{from, info}
	defer func() { b.received = outer }()
	b.self.PacketReceived(p, from)
}

// TakesPacketInfo implements weir.MaybePacketInfoReceiver: as the protocol on top does.
func (b *Base) TakesPacketInfo() bool { return b.infos }

// PacketTruncated implements weir.TruncatedReceiver: what is above sees that it was cut.
func (b *Base) PacketTruncated(p []byte, from weir.PacketAddr) { b.feed.DeliverTruncated(p, from) }

// PacketFailed hands up that a datagram to a peer failed.
func (b *Base) PacketFailed(err error, to weir.PacketAddr) { b.feed.Failed(err, to) }

// PauseWriting notes that the endpoint below has enough: see Blocked.
func (b *Base) PauseWriting() { b.blocked = true }

// ResumeWriting lets what is above send again.
func (b *Base) ResumeWriting() {
	b.blocked = false
	b.feed.Writable()
}

// WriteDrained hands up that everything was sent.
func (b *Base) WriteDrained() { b.feed.Drained() }

// EndpointLost ends what is above, for the same reason.
func (b *Base) EndpointLost(err error) { b.feed.Closed(err) }

// SendTo implements weir.PacketCarrier: the datagram goes down, unless what is below
// has enough.
func (b *Base) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	if b.blocked {
		return false, nil
	}
	if info := b.asked.of(to); info != nil {
		return true, b.below.SendInfo(p, to, info)
	}
	return true, b.below.SendTo(p, to)
}

// SendInfo implements weir.PacketInfoCarrier: it calls the layer's SendTo.
func (b *Base) SendInfo(p []byte, to weir.PacketAddr, info *weir.PacketInfo) (bool, error) {
	outer := b.asked
	b.asked = passing{to, info}
	defer func() { b.asked = outer }()
	return b.self.SendTo(p, to)
}

// PauseReading pauses the endpoint below.
func (b *Base) PauseReading() { b.below.PauseReading() }

// ResumeReading undoes PauseReading.
func (b *Base) ResumeReading() { b.below.ResumeReading() }

// Close closes the endpoint below, or aborts it.
func (b *Base) Close(abort bool) {
	if abort {
		b.below.Abort()
	} else {
		_ = b.below.Close() // it returns nil on its own loop
	}
}
