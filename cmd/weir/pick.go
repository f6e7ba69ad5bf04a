package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/balance"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/relay"
)

// picks are the words of --pick.
func picks() map[string]balance.Policy {
	return map[string]balance.Policy{
		"": balance.RoundRobin, "turn": balance.RoundRobin, "least": balance.Least, "two": balance.RandomOfTwo,
		"random": balance.Random, "first": balance.First, "peer": balance.HashPeer,
	}
}

// target is an endpoint to connect to, and its recent state.
// All loops share it: what one of them finds out, all know, and it is said once.
type target struct {
	app      *app // any
	endpoint *endpoint.Endpoint
	failing  atomic.Pointer[time.Time] // since then; nil: it is not
	refused  atomic.Int64              // sessions that were turned away meanwhile
}

// up notes a success.
func (t *target) up(now time.Time) {
	since := t.failing.Load()
	if since == nil || !t.failing.CompareAndSwap(since, nil) {
		return
	}
	took := max(now.Sub(*since), 0) // another loop's clock may be a turn ahead
	sentence := fmt.Sprintf("%s, after %s", t.endpoint.Label(), span(took))
	refused := int(t.refused.Swap(0))
	if refused > 0 {
		sentence += ", " + advice.Connections(refused) + " turned away"
	}
	t.app.rep.line(green, "back", sentence, "endpoint", t.endpoint.Label(), "seconds", took.Seconds(), "turned_away", refused)
}

// down notes a failure, and reports it once.
func (t *target) down(now time.Time, f *advice.Failure) {
	if !t.failing.CompareAndSwap(nil, &now) {
		return
	}
	if t.app.p.many() {
		f.Also = "weir stays, and says when it is back."
	}
	t.app.rep.fail(slog.LevelWarn, f)
}

// picker chooses which endpoint a session connects to.
type picker struct {
	app *app
	b   *balance.Balancer

	every time.Duration // of checks
}

func newPicker(a *app, f flags) *picker {
	p := &picker{app: a, every: f.check}
	if lead := a.fleet.lead(); a != lead {
		p.b = lead.pick.b.On(a.loop)
		return p
	}
	c := balance.Config{Policy: picks()[f.pick], Every: f.check, Rand: rand.Float64}
	if f.check > 0 {
		c.Check, c.Changed = p.check, p.changed
	}
	p.b = balance.New(a.loop, len(a.fleet.bs), c)
	return p
}

// changed reports that checks have found an endpoint back, on the lead's goroutine. Any
// loop's session may find that one is down, so whoever finds out reports that: see check,
// and session.failed.
func (p *picker) changed(id int, up bool, _ error) {
	if up {
		p.app.fleet.bs[id].up(p.app.loop.Now())
	}
}

// lease chooses an endpoint for a session of peer's; before is the lease that it
// had, if any. The error is balance.ErrNone.
func (p *picker) lease(peer net.Addr, before *balance.Lease) (*balance.Lease, error) {
	if before != nil {
		return before.Next(key(peer))
	}
	return p.b.Pick(key(peer))
}

// key is a peer's key for balance.HashPeer.
func key(peer net.Addr) uint64 {
	h := fnv.New64a()
	if ip, ok := ipOf(peer); ok {
		b := ip.As16()
		_, _ = h.Write(b[:]) // a hash takes everything
	}
	return h.Sum64()
}

// target is what a lease is for.
func (p *picker) target(side relay.Side, l *balance.Lease) *target {
	if side == relay.A {
		return p.app.fleet.a
	}
	return p.app.fleet.bs[l.Target()]
}

// stop ends the checks.
func (p *picker) stop() { p.b.Stop() }

// also chooses another endpoint for a session, beside the one that it is trying.
func (p *picker) also(peer net.Addr, beside *balance.Lease) (*balance.Lease, error) {
	return beside.Also(key(peer))
}

// How long a check may take: the time until the next one, within bounds that
// leave time to retransmit a packet.
const (
	checkLeast = 2 * time.Second
	checkMost  = 5 * time.Second
)

// check tries an endpoint once: what retry= would wait for is just what a check
// has to find out.
func (p *picker) check(id int, done func(error)) (stop func()) {
	e := p.app.fleet.bs[id].endpoint
	b := &probe{}
	c := e.Connect(p.app.env, b)
	late := p.app.loop.After(min(max(p.every, checkLeast), checkMost), func() {
		c.Stop()
		b.end(timedOut(e))
	})
	b.done = func(err error) {
		late.Stop()
		var failed *weir.ConnectError
		if errors.As(err, &failed) {
			t := p.app.fleet.bs[id]
			t.down(p.app.loop.Now(), advice.Connect(t.endpoint, failed))
		}
		done(err)
	}
	c.OnRetry(func(err *weir.ConnectError) {
		c.Stop()
		b.end(err)
	})
	return func() {
		late.Stop()
		c.Stop()
	}
}

// timedOut is the failure of an endpoint that did not answer in time.
func timedOut(e *endpoint.Endpoint) *weir.ConnectError {
	return &weir.ConnectError{Address: e.Label(), Stage: weir.StageConnect, Err: os.ErrDeadlineExceeded}
}

// probe is a connection that only shows that connecting works.
type probe struct {
	weir.NopProtocol
	done func(error)
	over bool
}

var (
	_ weir.Protocol      = (*probe)(nil)
	_ weir.ConnectFailer = (*probe)(nil)
)

func (p *probe) end(err error) {
	if !p.over {
		p.over = true
		p.done(err)
	}
}

func (p *probe) ConnectionMade(t weir.Transport) {
	p.end(nil)
	_ = t.Close() // always nil
}

func (p *probe) ConnectFailed(err *weir.ConnectError) { p.end(err) }
