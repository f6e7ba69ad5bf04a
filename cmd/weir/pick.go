package main

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/address"
	"github.com/weir-io/weir/relay"
)

// downFor is how long an endpoint that failed is passed over where another can
// be tried; with --check the next check decides.
const downFor = 5 * time.Second

// target is an endpoint to connect to, and how it has been.
type target struct {
	app      *app
	endpoint *address.Endpoint
	active   int // sessions on it, or on their way
	failing  bool
	since    time.Time // when it began to fail
	last     time.Time // when it failed last
	refused  int       // sessions that were turned away meanwhile
	probing  *address.Connecting
}

// up notes a success.
func (t *target) up() {
	if !t.failing {
		return
	}
	t.failing = false
	took := t.app.loop.Now().Sub(t.since)
	sentence := fmt.Sprintf("%s, after %s", t.endpoint.Label(), span(took))
	if t.refused > 0 {
		sentence += ", " + connections(t.refused) + " turned away"
	}
	t.app.rep.line(green, "back", sentence, "endpoint", t.endpoint.Label(), "seconds", took.Seconds(), "turned_away", t.refused)
	t.refused = 0
}

// down notes a failure, and says so once.
func (t *target) down(f *failure) {
	t.last = t.app.loop.Now()
	if t.failing {
		return
	}
	t.failing = true
	t.since = t.last
	if t.app.p.many() {
		f.also = "weir stays, and says when it is back."
	}
	t.app.rep.fail(slog.LevelWarn, f)
}

// picker chooses which endpoint a session connects to.
type picker struct {
	app    *app
	how    string
	bs     []*target
	a      *target // where A connects
	turn   int
	every  time.Duration
	checks *weir.Timer
}

func newPicker(a *app, f flags) *picker {
	p := &picker{app: a, how: f.pick, every: f.check, a: &target{app: a, endpoint: a.p.a}}
	for _, b := range a.p.bs {
		p.bs = append(p.bs, &target{app: a, endpoint: b})
	}
	return p
}

// next chooses for a side. Endpoints that fail come last.
func (p *picker) next(side relay.Side) *target {
	if side == relay.A {
		return p.a
	}
	now := p.app.loop.Now()
	var good []*target
	for i := range p.bs {
		t := p.bs[(p.turn+i)%len(p.bs)]
		if p.how == "first" {
			t = p.bs[i]
		}
		if !t.failing || p.every == 0 && now.Sub(t.last) >= downFor {
			good = append(good, t)
		}
	}
	if len(good) == 0 {
		// None is known to answer: the one that failed longest ago.
		best := p.bs[0]
		for _, t := range p.bs {
			if t.last.Before(best.last) {
				best = t
			}
		}
		return best
	}
	best := good[0]
	switch p.how {
	case "least":
		for _, t := range good {
			if t.active < best.active {
				best = t
			}
		}
	case "random":
		best = good[rand.N(len(good))]
	}
	p.turn = slices.Index(p.bs, best) + 1
	return best
}

// watch begins to check the endpoints, if that was asked for.
func (p *picker) watch() {
	if p.every == 0 || p.app.over {
		return
	}
	p.checks = p.app.loop.NewTimer(p.check)
	p.checks.Repeat(p.every)
}

// stop ends the checks.
func (p *picker) stop() {
	if p.checks != nil {
		p.checks.Stop()
	}
	for _, t := range p.bs {
		if t.probing != nil {
			t.probing.Stop()
			t.probing = nil
		}
	}
}

// check tries every endpoint that is not being tried.
func (p *picker) check() {
	for _, t := range p.bs {
		if t.probing == nil {
			t.probing = t.endpoint.Connect(p.app.env, &probe{t: t})
		}
	}
}

// probe is a connection that only shows that it can be made.
type probe struct{ t *target }

// ConnectionMade implements weir.Protocol.
func (p *probe) ConnectionMade(t weir.Transport) {
	p.t.probing = nil
	p.t.up()
	_ = t.Close() // always nil
}

// DataReceived implements weir.Protocol.
func (p *probe) DataReceived(b []byte) (int, error) { return len(b), nil }

// ConnectionLost implements weir.Protocol.
func (p *probe) ConnectionLost(error) {}

// ConnectFailed implements weir.ConnectFailer.
func (p *probe) ConnectFailed(err *weir.ConnectError) {
	p.t.probing = nil
	p.t.down(connectFailure(p.t.endpoint, err))
}
