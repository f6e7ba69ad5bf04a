package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/weir-io/weir"
)

// Packets relays datagrams. What a peer sends to its endpoint goes on to a target
// from an endpoint of the peer's own, called a flow, so that the target's answers find
// their way back. A flow ends when nothing has passed for a while, since datagrams
// have no end, or when it makes room for another.
//
//	peer 1 ──▶┌──────────┐──▶ flow 1 ──▶┐
//	peer 2 ──▶│ endpoint │──▶ flow 2 ──▶│ target, one of its addresses
//	       ◀──└──────────┘◀── … ◀───────┘
//
// Answers leave from the address that the peer sent to, where the backend can tell
// (BackendInfo.Packets): a peer that sends to several of this machine's has a flow for
// each, up to 16.
//
// There are as many flows as descriptors, or Most. When there is no room for one
// more, the flow that has been idle for longest of the address that holds most
// ends (a /64 counts as one address in IPv6), so that no address keeps others out.
//
// A target may be a name. It is looked up again as flows begin and fail, and each
// of its addresses is tried: the next one when the network refuses one, and when
// one stays silent.
//
// A refusal by the network (ICMP) has the effect that it would have without the
// relay, as far as a socket allows: a peer that is gone ends its flow, so what
// the target sends then is refused in turn; a target that refuses is reported to
// Trouble, and the flow's next datagram goes to the next address.
//
// Its methods belong to the loop's goroutine.
type Packets struct {
	loop    *weir.Loop
	config  PacketConfig
	in      *weir.PacketEndpoint
	flows   flowTable
	targets []*packetTarget
	idle    *weir.Timer
	closed  bool
	served  int
	total   tally
	dropped uint64 // by the system, for in's full receive buffer
	waiting int    // bytes of datagrams that wait for a lookup

	short    PacketShortage // since Full was called
	dropping [2]PacketLoss  // since Dropped was called
	period   *weir.Timer    // runs for shortPeriod after each call of these two
}

// PacketConfig says what a Packets does.
type PacketConfig struct {
	// Target is where datagrams go: one address. Targets, instead, may be several,
	// "host:port" each, and their hosts may be names, of which the addresses that
	// Network says are used: "udp", "udp4" or "udp6"; "" is "udp". Networks, if set, says it for
	// each of Targets instead.
	Target   weir.PacketAddr
	Targets  []string
	Network  string
	Networks []string
	// Resolver turns names into addresses; nil: the loop's does.
	Resolver weir.Resolver
	// Allow, if set, is asked about each address before it is used; an error leaves
	// it out, and is reported to Trouble.
	Allow func(netip.AddrPort) error
	// Pick, if set, chooses the target of a flow by its place in Targets. done, which
	// may be nil, is called once, when the flow ends, with nil, or when no address of
	// the target could be used, with the reason; then Pick is called again.
	Pick func(peer weir.PacketAddr) (target int, done func(err error))
	// Path, if set, opens the way of each flow instead of an endpoint of its own,
	// such as a way through a proxy: Target and Targets are then only names, which no one
	// looks up. An error refuses the flow.
	Path func(f *PacketFlow) (PacketPath, error)
	// Idle is how long a flow is kept when nothing passes; 0 is a minute.
	Idle time.Duration
	// Most is how many flows there may be at once; 0 is 65,536. The system's limit of
	// descriptors has the same effect.
	Most int
	// Options are of the endpoint that is listened on, UpOptions of those that
	// send on.
	Options, UpOptions []weir.PacketOption
	// Listen opens the endpoint that is listened on, UpListen those that send on for a
	// flow, with layers on it for example; nil: Loop.ListenPacket does.
	Listen   ListenPacketFunc
	UpListen func(f *PacketFlow, network, address string, p weir.PacketProtocol, opts ...weir.PacketOption) (*weir.PacketEndpoint, error)

	// Began, if set, is called with each new flow's peer and target, as Targets has
	// it; Ended with each that is over; and Trouble with what the network or the
	// system refused: to is the address it is about, zero where the system does not
	// say.
	Began   func(peer weir.PacketAddr, target string)
	Ended   func(peer weir.PacketAddr, target string, count PacketCount)
	Trouble func(err error, to weir.PacketAddr)
	// Full, if set, is called when there was no room: at the first flow that was evicted
	// or refused, or the first datagrams that the system dropped for a full receive buffer,
	// and then every 10 s, and at the end, of those since.
	Full func(PacketShortage)
	// Dropped, if set, is called with the datagrams of each side that were lost for other
	// reasons: after the first of them, and then every 10 s with those since. Those of the last
	// period are in Total alone.
	Dropped func(lost [2]PacketLoss)
	// Lost, if set, is called once when the endpoint is gone, last of all: nil
	// after Close.
	Lost func(err error)
}

// ListenPacketFunc opens an endpoint as Loop.ListenPacket does. The endpoint's protocol
// is p.
type ListenPacketFunc func(network, address string, p weir.PacketProtocol, opts ...weir.PacketOption) (*weir.PacketEndpoint, error)

// PacketShortage says what happened for lack of room.
type PacketShortage struct {
	Flows   int   // that there are
	Evicted int64 // flows that ended to make room
	Refused int64 // datagrams of new peers for which there was none
	Unread  int64 // datagrams that the system dropped, for a full receive buffer of either side
	Err     error // what the system said of a flow; nil: Most was reached
}

func (s *PacketShortage) any() bool { return s.Evicted+s.Refused+s.Unread > 0 }

// PacketPath is the way of a flow to its target, where that is not an endpoint of the
// relay's own. Its methods are called on the loop's goroutine.
type PacketPath interface {
	// Send sends p, which is lent for the call. An error drops the datagram.
	Send(p []byte) error
	// Close ends the path. Of each datagram that it kept, and that cannot leave any more,
	// it tells the flow: PacketFlow.Failing, the only method that it may still call.
	Close()
}

const (
	packetIdle = time.Minute
	packetMost = 1 << 16
	// shortPeriod is how often Full and Dropped are called.
	shortPeriod = 10 * time.Second
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
	if c.Resolver == nil {
		c.Resolver = l.Resolver()
	}
	// SO_BROADCAST only allows what is asked for by a target's address.
	c.UpOptions = append([]weir.PacketOption{weir.WithBroadcast()}, c.UpOptions...)
	if len(c.Targets) == 0 {
		if !c.Target.IP.IsValid() || c.Target.IP.Port() == 0 {
			return nil, &net.AddrError{Err: "not an address to send to", Addr: c.Target.String()}
		}
		c.Targets = []string{c.Target.IP.String()}
	}
	if c.Listen == nil {
		c.Listen = l.ListenPacket
	}
	if c.UpListen == nil {
		c.UpListen = func(_ *PacketFlow, network, address string, p weir.PacketProtocol, opts ...weir.PacketOption) (*weir.PacketEndpoint, error) {
			return l.ListenPacket(network, address, p, opts...)
		}
	}
	if c.Networks != nil && len(c.Networks) != len(c.Targets) {
		return nil, fmt.Errorf("relay: %d Networks for %d Targets: set one for each target, or none", len(c.Networks), len(c.Targets))
	}
	p := &Packets{loop: l, config: c, flows: newFlowTable()}
	for _, text := range c.Targets {
		t, err := newPacketTarget(p, text)
		if err != nil {
			return nil, err
		}
		p.targets = append(p.targets, t)
	}
	in, err := c.Listen(network, address, (*packetSide)(p), c.Options...)
	if err != nil {
		return nil, err
	}
	p.in = in
	p.idle = l.NewTimer(p.expire)
	p.period = l.NewTimer(p.periodOver)
	return p, nil
}

// LocalAddr is the address that it listens on.
func (p *Packets) LocalAddr() net.Addr { return p.in.LocalAddr() }

// Local is LocalAddr as a PacketAddr.
func (p *Packets) Local() weir.PacketAddr { return p.in.Local() }

// Peers is how many flows there are now.
func (p *Packets) Peers() int { return p.flows.len() }

// Served is how many flows there have been.
func (p *Packets) Served() int { return p.served }

// Total is what has passed so far, in flows that are over and those that are not.
func (p *Packets) Total() PacketCount {
	t := p.total.count()
	for _, f := range p.flows.byPeer {
		for ; f != nil; f = f.sibling {
			t.Add(f.count.count())
		}
	}
	return t
}

// Close ends all flows and closes the endpoints. Lost comes later.
func (p *Packets) Close() {
	if p.closed {
		return
	}
	p.end()
	_ = p.in.Close() // returns nil on its own loop
}

// end ends the flows and what was under way for them.
func (p *Packets) end() {
	p.closed = true
	p.sayShort()
	for f := p.flows.oldest(); f != nil; f = p.flows.oldest() {
		f.end()
	}
	for _, t := range p.targets {
		t.stop()
	}
	p.idle.Stop()
	p.period.Stop()
}

func (p *Packets) trouble(err error, to weir.PacketAddr) {
	if p.config.Trouble != nil {
		p.config.Trouble(err, to)
	}
}

// packetSide is a Packets as the protocol of its endpoint.
type packetSide Packets

var (
	_ weir.PacketProtocol = (*packetSide)(nil)
	_ weir.PacketFailer   = (*packetSide)(nil)
)

func (s *packetSide) EndpointMade(*weir.PacketEndpoint) {}

func (s *packetSide) PacketReceived(data []byte, from weir.PacketAddr) {
	p := (*Packets)(s)
	if p.closed {
		return
	}
	if n := p.in.Dropped(); n != p.dropped {
		p.beUnread(&p.total, A, int(n-p.dropped))
		p.dropped = n
	}
	if p.closed { // by what was called
		p.total.received[A]++
		p.lose(&p.total, A, ended, 1)
		return
	}
	asked := p.in.AnswerInfo()
	f := p.flows.of(from, asked.Local)
	if f == nil {
		if f = p.begin(from, asked); f == nil {
			p.total.received[A]++
			return
		}
	}
	f.received(data)
}

// PacketFailed implements weir.PacketFailer: a peer that refuses its answers is
// gone.
func (s *packetSide) PacketFailed(err error, to weir.PacketAddr) {
	p := (*Packets)(s)
	f := p.flows.byPeer[to]
	switch {
	case errors.Is(err, weir.ErrTruncated): // what a peer sent is too long to be taken
		p.total.received[A]++
		p.lose(&p.total, A, tooLong, 1)
	case to != (weir.PacketAddr{}):
		p.recall(f, err)
	}
	if f == nil || !errors.Is(err, syscall.ECONNREFUSED) {
		p.trouble(err, to)
		return
	}
	for ; f != nil; f = p.flows.byPeer[to] {
		f.end()
	}
}

// recall counts an answer as lost that was sent to the peer of f, one of the peer's flows;
// nil: it has none any more.
func (p *Packets) recall(f *PacketFlow, err error) {
	for ; f != nil; f = f.sibling {
		if p.recallIn(&f.count, B, err) {
			return
		}
	}
	p.recallIn(&p.total, B, err)
}

func (s *packetSide) EndpointLost(err error) {
	p := (*Packets)(s)
	p.end()
	if p.config.Lost != nil {
		p.config.Lost(err)
	}
}

// begin makes a new flow. It returns nil where there is no room for one, or where what is
// called meanwhile ends it, and has then counted its first datagram as lost.
func (p *Packets) begin(from weir.PacketAddr, asked weir.PacketInfo) *PacketFlow {
	if f := p.flows.eldest(from); f != nil {
		p.evict(f, nil)
	} else if p.flows.len() >= p.config.Most {
		p.makeRoom(nil)
	}
	if p.closed { // by what was called
		p.lose(&p.total, A, ended, 1)
		return nil
	}
	f := &PacketFlow{p: p, peer: from, asked: asked, began: p.loop.Now()}
	f.choose()
	if p.config.Path != nil && !p.closed {
		path, err := p.config.Path(f)
		if descriptorsOut(err) && p.makeRoom(err) && !p.closed {
			path, err = p.config.Path(f)
		}
		if err != nil {
			f.refuse(err)
			return nil
		}
		if f.over { // it has failed already
			path.Close()
			p.lose(&p.total, A, failed, 1)
			return nil
		}
		f.path = path
	} else if a := f.target.first(); a.IsValid() {
		f.to, f.wide = a, f.target.wide(a)
		// No other address would have a descriptor. Other failures belong to the
		// address, and send looks for another one.
		if err := f.open(); descriptorsOut(err) {
			f.refuse(err)
			return nil
		}
	}
	if p.closed {
		f.end()
		p.lose(&p.total, A, ended, 1)
		return nil
	}
	f.last = f.began
	p.flows.add(f)
	p.served++
	if p.flows.len() == 1 {
		p.idle.Set(p.config.Idle)
	}
	f.target.look(false)
	if p.config.Began != nil {
		p.config.Began(from, f.target.text)
	}
	if f.over {
		p.lose(&p.total, A, ended, 1)
		return nil
	}
	return f
}

// makeRoom ends the flow whose turn it is, for lack of what err says. It reports
// false if there is none.
func (p *Packets) makeRoom(err error) bool {
	f := p.flows.victim()
	if f == nil {
		return false
	}
	p.evict(f, err)
	return true
}

func (p *Packets) evict(f *PacketFlow, err error) {
	f.end()
	p.short.Evicted++
	p.beShort(err)
}

// beShort has Full hear of a shortage, now or when the period is over.
func (p *Packets) beShort(err error) {
	p.short.Err = err
	p.soon()
}

func (p *Packets) soon() {
	if !p.period.Running() {
		p.sayShort()
		p.period.Set(shortPeriod)
	}
}

func (p *Packets) sayShort() {
	s := p.short
	p.short = PacketShortage{}
	if s.any() && p.config.Full != nil {
		s.Flows = p.flows.len()
		p.config.Full(s)
	}
}

// sayDropped has Dropped hear of what was lost since it last did.
func (p *Packets) sayDropped() {
	lost := p.dropping
	p.dropping = [2]PacketLoss{}
	if lost[A].Sum()+lost[B].Sum() > 0 {
		p.config.Dropped(lost)
	}
}

func (p *Packets) periodOver() {
	if !p.short.any() && p.dropping == ([2]PacketLoss{}) {
		return
	}
	p.period.Set(shortPeriod) // what is lost inside is for the next one
	p.sayShort()
	if !p.closed { // by what was called
		p.sayDropped()
	}
}

// expire ends the flows that have been idle for long enough, and waits for the
// next one.
func (p *Packets) expire() {
	now := p.loop.Now()
	for f := p.flows.oldest(); f != nil; f = p.flows.oldest() {
		if left := p.config.Idle - now.Sub(f.last); left > 0 {
			p.idle.Set(left)
			return
		}
		f.end()
	}
}

// descriptorsOut reports whether the system has no room for one more endpoint:
// descriptors, memory or ports.
func descriptorsOut(err error) bool {
	return isAny(err, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRINUSE)
}

// addressFails reports whether an error says that an address cannot be reached, so
// that another one may be.
func addressFails(err error) bool {
	return isAny(err, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN,
		syscall.EAFNOSUPPORT, syscall.EADDRNOTAVAIL, syscall.EACCES, syscall.EPERM, syscall.EINVAL)
}

func isAny(err error, all ...error) bool {
	return err != nil && slices.ContainsFunc(all, func(e error) bool { return errors.Is(err, e) })
}
