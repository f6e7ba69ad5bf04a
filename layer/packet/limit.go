package packet

import (
	"net/netip"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// LimitConfig says how many peers there may be at once.
type LimitConfig struct {
	// LimitConfig is how many flows there may be in all, and from one address. Wait
	// and Patience have no effect.
	layer.LimitConfig
	// Idle is how long a flow counts after its last datagram; a minute by default.
	Idle   time.Duration
	Counts *Counts // nil: nothing is counted
}

// limitIdle is how long a silent flow counts.
const limitIdle = time.Minute

// Limit is the layer that drops datagrams from peers beyond a number. Datagrams have
// no end, so a peer counts until nothing has passed between it and the endpoint for a
// time. What is sent is never dropped. The Layer counts over all endpoints that it is
// used on.
func Limit(c LimitConfig) Layer {
	if c.Idle <= 0 {
		c.Idle = limitIdle
	}
	if c.Counts == nil {
		c.Counts = &Counts{}
	}
	counter := layer.NewLimiter(c.LimitConfig)
	return func(l *weir.Loop) Ends {
		p := &peers{loop: l, c: c, counter: counter}
		p.flows = newFlows(max(c.Total, flowsMost), func(f *flow[struct{}]) { counter.Left(f.peer.IP.Addr()) })
		return p
	}
}

type peers struct {
	Base
	loop    *weir.Loop
	c       LimitConfig
	counter *layer.Limiter
	flows   flows[struct{}]
}

var (
	_ weir.PacketProtocol    = (*peers)(nil)
	_ weir.TruncatedReceiver = (*peers)(nil)
	_ weir.PacketCarrier     = (*peers)(nil)
)

// admits reports whether a peer may send.
func (p *peers) admits(from weir.PacketAddr) bool {
	p.c.Counts.Seen.Add(1)
	now := p.loop.Now()
	if p.flows.find(from, now) != nil {
		return true
	}
	for f := p.flows.first; f != nil && now.Sub(f.used) >= p.c.Idle; f = p.flows.first {
		p.flows.forget(f)
	}
	if p.counter.Admit(plain(from).IP.Addr()) != nil {
		p.c.Counts.Refused.Add(1)
		return false
	}
	p.flows.add(from, now)
	return true
}

func (p *peers) PacketReceived(data []byte, from weir.PacketAddr) {
	if p.admits(from) {
		p.Deliver(data, from)
	}
}

func (p *peers) PacketTruncated(data []byte, from weir.PacketAddr) {
	if p.admits(from) {
		p.Base.PacketTruncated(data, from)
	}
}

// SendTo implements weir.PacketCarrier: an answer keeps its flow.
func (p *peers) SendTo(data []byte, to weir.PacketAddr) (bool, error) {
	p.flows.find(to, p.loop.Now())
	return p.Base.SendTo(data, to)
}

func (p *peers) EndpointLost(err error) {
	p.flows.forgetAll()
	p.Base.EndpointLost(err)
}

// Access is the layer that lets datagrams pass only from and to addresses for which
// check returns nil, such as proxy.Access's CheckAddrPort. What comes from others is
// dropped, and SendTo returns check's error. Addresses that are not IP addresses pass. c
// may be nil.
func Access(check func(netip.AddrPort) error, c *Counts) Layer {
	if c == nil {
		c = &Counts{}
	}
	return func(*weir.Loop) Ends { return &guard{check: check, counts: c} }
}

type guard struct {
	Base
	check  func(netip.AddrPort) error
	counts *Counts
}

var (
	_ weir.PacketProtocol    = (*guard)(nil)
	_ weir.TruncatedReceiver = (*guard)(nil)
	_ weir.PacketCarrier     = (*guard)(nil)
)

func (g *guard) refuses(peer weir.PacketAddr) error {
	g.counts.Seen.Add(1)
	if !peer.IP.IsValid() {
		return nil
	}
	err := g.check(plain(peer).IP)
	if err != nil {
		g.counts.Refused.Add(1)
	}
	return err
}

func (g *guard) PacketReceived(p []byte, from weir.PacketAddr) {
	if g.refuses(from) == nil {
		g.Deliver(p, from)
	}
}

func (g *guard) PacketTruncated(p []byte, from weir.PacketAddr) {
	if g.refuses(from) == nil {
		g.Base.PacketTruncated(p, from)
	}
}

func (g *guard) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	if g.Blocked() {
		return false, nil
	}
	if err := g.refuses(to); err != nil {
		return true, &layer.Error{Layer: "access", Err: err}
	}
	return g.Base.SendTo(p, to)
}
