package main

import (
	"errors"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/balance"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/relay"
)

// packetPicker chooses the target of each flow, as picker does for connections.
type packetPicker struct {
	app      *packetApp
	to       []*endpoint.Endpoint
	targets  []string          // "host:port" of each
	networks []string          // of each: "udp", "udp4" or "udp6"
	b        *balance.Balancer // nil: there is one target
	away     []time.Time       // since when each has failed; zero: it has not
}

func newPacketPicker(a *packetApp, to []*endpoint.Endpoint) *packetPicker {
	p := &packetPicker{app: a, to: to, away: make([]time.Time, len(to))}
	for _, e := range to {
		p.targets = append(p.targets, e.PacketTarget())
		p.networks = append(p.networks, e.Kind().Packets(e.Base).Network)
	}
	if len(to) == 1 {
		return p
	}
	c := balance.Config{Policy: picks()[a.f.pick], Every: a.f.check, Rand: rand.Float64, Changed: p.changed}
	if a.f.check > 0 {
		c.Check = p.check
	}
	p.b = balance.New(a.loop, len(to), c)
	return p
}

// label names the targets for people.
func (p *packetPicker) label() string {
	if len(p.to) == 1 && len(p.to[0].Layers) == 0 {
		return p.targets[0]
	}
	var all []string
	for _, e := range p.to {
		all = append(all, e.Label())
	}
	return strings.Join(all, " | ")
}

// config is what the targets say of a relay.
func (p *packetPicker) config() (relay.PacketConfig, error) {
	c := relay.PacketConfig{
		Targets: p.targets, Networks: p.networks, Resolver: p.app.names, Idle: endpoint.PacketIdle(p.app.ends()...), Allow: p.app.notOwn,
	}
	if p.b != nil {
		c.Pick = p.pick
	}
	if !p.to[0].ThroughProxy() {
		var layered []relay.ListenPacketFunc
		for _, e := range p.to {
			layered = append(layered, p.app.layered(e))
		}
		c.UpListen = func(f *relay.PacketFlow, network, at string, proto weir.PacketProtocol, opts ...weir.PacketOption) (*weir.PacketEndpoint, error) {
			return layered[f.Target()](network, at, proto, opts...)
		}
		return c, nil
	}
	var ways []func(proxy.AssociationConfig) *endpoint.PacketWay
	for _, e := range p.to {
		way, err := e.Associations(p.app.env)
		if err != nil {
			return c, err
		}
		ways = append(ways, way)
	}
	c.Path = func(f *relay.PacketFlow) (relay.PacketPath, error) {
		return p.app.newWay(f, p.to[f.Target()], ways[f.Target()])
	}
	return c, nil
}

// pick leases a target for a flow.
func (p *packetPicker) pick(peer weir.PacketAddr) (int, func(error)) {
	h := fnv.New64a()
	ip := peer.IP.Addr().As16()
	_, _ = h.Write(ip[:]) // a hash takes everything
	l, err := p.b.Pick(h.Sum64())
	if err != nil {
		return 0, nil
	}
	return l.Target(), func(err error) {
		if err != nil {
			l.Failed(err)
			return
		}
		l.Release()
	}
}

// changed says that a target is away, or back.
func (p *packetPicker) changed(id int, up bool, err error) {
	now, label := p.app.loop.Now(), p.to[id].Label()
	switch {
	case !up && p.away[id].IsZero():
		p.away[id] = now
		p.app.rep.fail(slog.LevelWarn, &advice.Failure{Problem: "cannot send to " + label + ": " + advice.Why(err), Also: "weir stays, and says when it is back."})
	case up && !p.away[id].IsZero():
		took := now.Sub(p.away[id])
		p.away[id] = time.Time{}
		p.app.rep.line(green, "back", label+", after "+span(took), "endpoint", label, "seconds", took.Seconds())
	}
}

func (p *packetPicker) stop() {
	if p.b != nil {
		p.b.Stop()
	}
}

// check finds out whether the network refuses an empty datagram to every address of a
// target, trying one after another. No answer is needed: what answers to what is not known
// here.
func (p *packetPicker) check(id int, done func(error)) (stop func()) {
	host, port, err := net.SplitHostPort(p.targets[id])
	if err != nil {
		call := p.app.loop.Soon(func() { done(err) })
		return func() { call.Cancel() }
	}
	number, _ := strconv.ParseUint(port, 10, 16) // NewPackets has checked it
	c := &packetProbe{p: p, to: p.to[id], port: uint16(number), done: done}
	c.late = p.app.loop.After(min(max(p.app.f.check, checkLeast), checkMost), func() { c.end(os.ErrDeadlineExceeded) })
	c.cancel = p.app.names.LookupNetIP(p.app.loop, "ip"+strings.TrimPrefix(p.networks[id], "udp"), host, func(all []netip.Addr, err error) {
		c.cancel = func() {}
		if err == nil {
			c.rest = all
			err = c.next()
		}
		if err != nil {
			c.end(err)
		}
	})
	return c.stop
}

// packetProbe is a check under way.
type packetProbe struct {
	p      *packetPicker
	to     *endpoint.Endpoint
	port   uint16
	rest   []netip.Addr // that were not tried
	done   func(error)
	cancel func() // ends the lookup
	late   *weir.Timer
	up     *weir.PacketEndpoint
	over   bool
}

var (
	_ weir.PacketProtocol = (*packetProbe)(nil)
	_ weir.PacketFailer   = (*packetProbe)(nil)
)

// probeWait is how long a refusal is waited for.
const probeWait = 500 * time.Millisecond

// next sends to the next address that takes it.
func (c *packetProbe) next() (err error) {
	for len(c.rest) > 0 {
		a := c.rest[0].Unmap()
		c.rest = c.rest[1:]
		at := netip.AddrPortFrom(a, c.port)
		var up *weir.PacketEndpoint
		if up, err = c.p.app.connected(c.to, "udp", at.String(), c); err != nil {
			continue
		}
		if err = up.SendTo(nil, weir.PacketAddr{IP: at}); err != nil {
			up.Abort()
			continue
		}
		c.up = up
		c.late.Stop()
		c.late = c.p.app.loop.After(probeWait, func() { c.end(nil) })
		return nil
	}
	return err
}

func (c *packetProbe) stop() {
	c.over = true
	c.cancel()
	c.late.Stop()
	if c.up != nil {
		c.up.Abort()
	}
}

func (c *packetProbe) end(err error) {
	if !c.over {
		c.stop()
		c.done(err)
	}
}

func (c *packetProbe) EndpointMade(*weir.PacketEndpoint) {}

// PacketReceived implements weir.PacketProtocol: who answers is there.
func (c *packetProbe) PacketReceived([]byte, weir.PacketAddr) { c.end(nil) }

// PacketFailed implements weir.PacketFailer: the next address may do.
func (c *packetProbe) PacketFailed(err error, _ weir.PacketAddr) {
	if c.over || c.up == nil {
		return
	}
	c.up.Abort()
	c.up = nil
	if len(c.rest) > 0 {
		err = c.next()
	}
	if err != nil {
		c.end(err)
	}
}

// EndpointLost has the end of an endpoint, which may be one whose address the network
// refused and that has been given up for another: only c aborts them.
func (c *packetProbe) EndpointLost(err error) {
	if err != nil && !errors.Is(err, weir.ErrAborted) {
		c.end(err)
	}
}
