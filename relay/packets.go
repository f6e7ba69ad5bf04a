package relay

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/weir-io/weir"
)

// Packets relays datagrams: what peers send to its endpoint goes on to one
// target, each peer's from an endpoint of its own, so that the target's answers
// find their way back. A peer is forgotten when nothing has passed for a while,
// since datagrams have no end.
//
//	peer 1 ──▶┌──────────┐──▶ endpoint 1 ──▶┐
//	peer 2 ──▶│ endpoint │──▶ endpoint 2 ──▶│ target
//	       ◀──└──────────┘◀── … ◀───────────┘
//
// Its methods belong to the loop's goroutine.
type Packets struct {
	loop   *weir.Loop
	config PacketConfig
	in     *weir.PacketEndpoint
	peers  map[weir.PacketAddr]*packetPeer
	order  []*packetPeer // the same, by place
	closed bool
	served int
	total  PacketCount
}

// PacketConfig says what a Packets does.
type PacketConfig struct {
	// Target is where datagrams go.
	Target weir.PacketAddr
	// Idle is how long a peer is remembered when nothing passes; 0 is a minute.
	Idle time.Duration
	// Most is how many peers there may be at once; 0 is 1024. Datagrams of others
	// are dropped until one is forgotten.
	Most int
	// Options are of the endpoint that is listened on, UpOptions of those that
	// send on.
	Options, UpOptions []weir.Option
	// Listen opens the endpoint that is listened on, UpListen those that send on, with
	// layers on it for example; nil: Loop.ListenPacket does.
	Listen, UpListen ListenPacketFunc

	// Began, if set, is called with each new peer, Ended with each that is
	// forgotten, and Trouble with what the network or the system refused: to is
	// whom it is about, zero where nobody knows.
	Began   func(peer weir.PacketAddr)
	Ended   func(peer weir.PacketAddr, count PacketCount)
	Trouble func(err error, to weir.PacketAddr)
	// Lost, if set, is called once when the endpoint is gone, last of all: nil
	// after Close.
	Lost func(err error)
}

// ListenPacketFunc opens an endpoint as Loop.ListenPacket does. The endpoint's protocol
// is p.
type ListenPacketFunc func(network, address string, p weir.PacketProtocol, opts ...weir.Option) (*weir.PacketEndpoint, error)

// PacketCount counts what passed, by Side: what A's peers sent and what B, the
// target, answered.
type PacketCount struct {
	Packets, Bytes [2]int64
	Dropped        int64 // could not be sent on
	Took           time.Duration
}

func (c *PacketCount) add(o *PacketCount) {
	for s := range c.Packets {
		c.Packets[s] += o.Packets[s]
		c.Bytes[s] += o.Bytes[s]
	}
	c.Dropped += o.Dropped
}

const (
	packetIdle = time.Minute
	packetMost = 1024
)

// NewPackets listens for datagrams on an address, as Loop.ListenPacket names it,
// and relays them.
func NewPackets(l *weir.Loop, network, address string, c PacketConfig) (*Packets, error) {
	if c.Idle <= 0 {
		c.Idle = packetIdle
	}
	if c.Most <= 0 {
		c.Most = packetMost
	}
	if !c.Target.IP.IsValid() || c.Target.IP.Port() == 0 {
		return nil, &net.AddrError{Err: "not an address to send to", Addr: c.Target.String()}
	}
	if c.Listen == nil {
		c.Listen = l.ListenPacket
	}
	if c.UpListen == nil {
		c.UpListen = l.ListenPacket
	}
	p := &Packets{loop: l, config: c, peers: map[weir.PacketAddr]*packetPeer{}}
	in, err := c.Listen(network, address, (*packetSide)(p), c.Options...)
	if err != nil {
		return nil, err
	}
	p.in = in
	return p, nil
}

// LocalAddr is where it listens.
func (p *Packets) LocalAddr() net.Addr { return p.in.LocalAddr() }

// Local is LocalAddr as a PacketAddr.
func (p *Packets) Local() weir.PacketAddr { return p.in.Local() }

// Peers is how many there are now.
func (p *Packets) Peers() int { return len(p.peers) }

// Served is how many peers there have been.
func (p *Packets) Served() int { return p.served }

// Total is what has passed so far, of those that are forgotten and those that
// are not.
func (p *Packets) Total() PacketCount {
	t := p.total
	for _, peer := range p.order {
		t.add(&peer.count)
	}
	return t
}

// Close forgets all peers and closes the endpoints. Lost comes later.
func (p *Packets) Close() {
	if p.closed {
		return
	}
	p.closed = true
	p.forgetAll()
	_ = p.in.Close() // returns nil on its own loop
}

func (p *Packets) forgetAll() {
	for len(p.order) > 0 {
		p.order[len(p.order)-1].forget()
	}
}

func (p *Packets) trouble(err error, to weir.PacketAddr) {
	if p.config.Trouble != nil {
		p.config.Trouble(err, to)
	}
}

// packetSide is a Packets as the protocol of its endpoint.
type packetSide Packets

// EndpointMade implements weir.PacketProtocol.
func (s *packetSide) EndpointMade(*weir.PacketEndpoint) {}

// PacketReceived implements weir.PacketProtocol.
func (s *packetSide) PacketReceived(data []byte, from weir.PacketAddr) {
	p := (*Packets)(s)
	if p.closed {
		return
	}
	peer := p.peers[from]
	if peer == nil {
		if peer = p.welcome(from); peer == nil {
			p.total.Dropped++
			return
		}
	}
	peer.pass(A, data)
}

// PacketFailed implements weir.PacketFailer: a peer that refuses its answers is
// gone.
func (s *packetSide) PacketFailed(err error, to weir.PacketAddr) {
	p := (*Packets)(s)
	if peer := p.peers[to]; peer != nil && errors.Is(err, syscall.ECONNREFUSED) {
		peer.forget()
		return
	}
	p.trouble(err, to)
}

// EndpointLost implements weir.PacketProtocol.
func (s *packetSide) EndpointLost(err error) {
	p := (*Packets)(s)
	p.closed = true
	p.forgetAll()
	if p.config.Lost != nil {
		p.config.Lost(err)
	}
}

// welcome makes a new peer, or returns nil where there is no room for one.
func (p *Packets) welcome(from weir.PacketAddr) *packetPeer {
	if len(p.peers) >= p.config.Most {
		return nil
	}
	peer := &packetPeer{p: p, addr: from, at: len(p.order), began: p.loop.Now(), last: p.loop.Now()}
	network, any := "udp4", "0.0.0.0:0"
	if !p.config.Target.IP.Addr().Unmap().Is4() {
		network, any = "udp6", "[::]:0"
	}
	up, err := p.config.UpListen(network, any, peer, p.config.UpOptions...)
	if err != nil {
		p.trouble(err, p.config.Target)
		return nil
	}
	peer.up = up
	p.peers[from] = peer
	p.order = append(p.order, peer)
	p.served++
	peer.idle = p.loop.After(p.config.Idle, peer.checkIdle)
	if p.config.Began != nil {
		p.config.Began(from)
	}
	return peer
}

// packetPeer is somebody who sends, and the protocol of the endpoint that sends
// on for them.
type packetPeer struct {
	p     *Packets
	addr  weir.PacketAddr
	up    *weir.PacketEndpoint
	at    int // in Packets.order
	count PacketCount
	idle  *weir.Timer
	began time.Time
	last  time.Time // when something passed
	gone  bool
}

// pass sends on what came from a side.
func (r *packetPeer) pass(from Side, data []byte) {
	r.last = r.p.loop.Now()
	e, to := r.up, r.p.config.Target
	if from == B {
		e, to = r.p.in, r.addr
	}
	if err := e.SendTo(data, to); err != nil {
		r.count.Dropped++
		if !errors.Is(err, weir.ErrSendBufferFull) {
			r.p.trouble(err, to)
		}
		return
	}
	r.count.Packets[from]++
	r.count.Bytes[from] += int64(len(data))
}

// checkIdle forgets the peer, or looks again when it would be time to.
func (r *packetPeer) checkIdle() {
	if left := r.p.config.Idle - r.p.loop.Now().Sub(r.last); left > 0 {
		r.idle.Set(left)
		return
	}
	r.forget()
}

func (r *packetPeer) forget() {
	if r.gone {
		return
	}
	r.gone = true
	r.idle.Stop()
	_ = r.up.Close() // what is buffered still goes out
	p := r.p
	delete(p.peers, r.addr)
	last := p.order[len(p.order)-1]
	p.order[r.at], last.at = last, r.at
	p.order = p.order[:len(p.order)-1]
	r.count.Took = p.loop.Now().Sub(r.began)
	p.total.add(&r.count)
	if p.config.Ended != nil {
		p.config.Ended(r.addr, r.count)
	}
}

// EndpointMade implements weir.PacketProtocol.
func (r *packetPeer) EndpointMade(*weir.PacketEndpoint) {}

// PacketReceived implements weir.PacketProtocol. What does not come from the
// target is not for the peer.
func (r *packetPeer) PacketReceived(data []byte, from weir.PacketAddr) {
	if !r.gone && from.IP == r.p.config.Target.IP {
		r.pass(B, data)
	}
}

// PacketFailed implements weir.PacketFailer.
func (r *packetPeer) PacketFailed(err error, to weir.PacketAddr) {
	if !r.gone {
		r.p.trouble(err, to)
	}
}

// EndpointLost implements weir.PacketProtocol.
func (r *packetPeer) EndpointLost(err error) {
	if err != nil && !r.gone {
		r.p.trouble(err, r.p.config.Target)
	}
	r.forget()
}
