package packet

import (
	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// Layer makes a layer for one endpoint. It is called on the loop's goroutine.
type Layer func(l *weir.Loop) Ends

// Ends are the two ends of a layer. What embeds Base is one.
type Ends interface {
	weir.PacketProtocol
	weir.PacketCarrier
	base() *Base
}

// Listen is Loop.ListenPacket with layers on the endpoint, the first nearest the wire,
// which are in force before the first datagram. It returns the endpoint on top, whose
// protocol is p. The options are the socket's.
func Listen(l *weir.Loop, network, address string, p weir.PacketProtocol, layers []Layer, opts ...weir.Option) (*weir.PacketEndpoint, error) {
	return Stack(l, func(lowest weir.PacketProtocol) (*weir.PacketEndpoint, error) {
		return l.ListenPacket(network, address, lowest, opts...)
	}, p, layers)
}

// Stack is Listen with layers on an endpoint that open makes, for the protocol that it
// is given, and whose EndpointMade comes later.
func Stack(l *weir.Loop, open func(weir.PacketProtocol) (*weir.PacketEndpoint, error), p weir.PacketProtocol, layers []Layer) (*weir.PacketEndpoint, error) {
	ends, lowest := make([]Ends, len(layers)), p
	for i := len(layers) - 1; i >= 0; i-- {
		ends[i] = layers[i](l)
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
type Base struct {
	below   *weir.PacketEndpoint
	feed    *weir.PacketFeed
	blocked bool // the endpoint below has asked for a pause
}

func (b *Base) base() *Base { return b }

// Below is the endpoint below; nil before Listen has opened it.
func (b *Base) Below() *weir.PacketEndpoint { return b.below }

// Upper is the endpoint above.
func (b *Base) Upper() *weir.PacketEndpoint { return b.feed.Endpoint() }

// Deliver hands a datagram to what is above. p is lent until it returns.
func (b *Base) Deliver(p []byte, from weir.PacketAddr) { b.feed.Deliver(p, from) }

// Failed tells what is above of a datagram that came to nothing.
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

// EndpointMade implements weir.PacketProtocol.
func (b *Base) EndpointMade(*weir.PacketEndpoint) { b.feed.Begin() }

// PacketReceived implements weir.PacketProtocol: the datagram goes up.
func (b *Base) PacketReceived(p []byte, from weir.PacketAddr) { b.feed.Deliver(p, from) }

// PacketTruncated implements weir.TruncatedReceiver: what is above sees that it was cut.
func (b *Base) PacketTruncated(p []byte, from weir.PacketAddr) { b.feed.DeliverTruncated(p, from) }

// PacketFailed implements weir.PacketFailer.
func (b *Base) PacketFailed(err error, to weir.PacketAddr) { b.feed.Failed(err, to) }

// PauseWriting implements weir.WritePauser.
func (b *Base) PauseWriting() { b.blocked = true }

// ResumeWriting implements weir.WritePauser.
func (b *Base) ResumeWriting() {
	b.blocked = false
	b.feed.Writable()
}

// WriteDrained implements weir.Drainer.
func (b *Base) WriteDrained() { b.feed.Drained() }

// EndpointLost implements weir.PacketProtocol.
func (b *Base) EndpointLost(err error) { b.feed.Closed(err) }

// SendTo implements weir.PacketCarrier: the datagram goes down, unless what is below
// has enough.
func (b *Base) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	if b.blocked {
		return false, nil
	}
	return true, b.below.SendTo(p, to)
}

// PauseReading implements weir.PacketCarrier.
func (b *Base) PauseReading() { b.below.PauseReading() }

// ResumeReading implements weir.PacketCarrier.
func (b *Base) ResumeReading() { b.below.ResumeReading() }

// Close implements weir.PacketCarrier.
func (b *Base) Close(abort bool) {
	if abort {
		b.below.Abort()
	} else {
		_ = b.below.Close() // it returns nil on its own loop
	}
}
