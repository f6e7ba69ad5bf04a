package main

import (
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/balance"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/relay"
)

// tryTime is how long a target is tried alone before the next one is tried too.
const tryTime = 2 * time.Second

// try is a target that a session tries to connect to while there are others.
//
//	first ──┬── fails, once: the next is tried at once ──┬── the first that is connected
//	        └── 2 s without an answer: the next too ─────┘   used, the others are ended
//
// No target is given up for being slow, and none holds up the next one,
// whatever it waits for: an answer, a handshake, a name, or its retry=.
type try struct {
	weir.NopProtocol
	s      *session
	target *target
	lease  *balance.Lease
	c      interface{ Stop() bool }
	slow   *weir.Timer
	passed bool // the next was tried
	said   bool // its failure
	over   bool
}

var (
	_ weir.Protocol      = (*try)(nil)
	_ weir.ConnectFailer = (*try)(nil)
)

// try begins to connect to the target of a lease.
func (s *session) try(l *balance.Lease) {
	y := &try{s: s, target: s.app.fleet.bs[l.Target()], lease: l}
	s.tries = append(s.tries, y)
	c := y.target.endpoint.ConnectFor(s.env(y.target.endpoint), s.wants(), y)
	c.OnRetry(func(err *weir.ConnectError) {
		y.fails(err)
		y.next()
	})
	y.c = c
	y.slow = s.app.loop.After(tryTime, y.next)
}

// next tries another target, once. It reports false if there is none.
func (y *try) next() {
	if y.passed {
		return
	}
	y.passed = true
	y.slow.Stop()
	if l, err := y.s.app.pick.also(y.s.peer(), y.lease); err == nil {
		y.s.try(l)
	}
}

// fails reports that the target fails, once.
func (y *try) fails(err *weir.ConnectError) {
	if !y.said {
		y.said = true
		y.target.down(y.s.app.loop.Now(), advice.Connect(y.target.endpoint, err))
	}
}

// giveUp ends a try that is not over. beaten says that another target was faster:
// if that one was tried because of this one, this one fails.
func (y *try) giveUp(beaten bool) {
	if y.over {
		return
	}
	y.over = true
	y.slow.Stop()
	y.c.Stop()
	if !beaten || !y.passed {
		y.lease.Release()
		return
	}
	err := timedOut(y.target.endpoint)
	y.fails(err)
	y.lease.Failed(err)
}

func (y *try) ConnectionMade(t weir.Transport) {
	s := y.s
	y.over = true
	y.slow.Stop()
	for _, other := range s.tries {
		other.giveUp(true)
	}
	s.lease, s.targets[relay.B], s.ends[relay.B] = y.lease, y.target, y.target.endpoint
	p := s.relay.Protocol(relay.B)
	t.SetProtocol(p)
	p.ConnectionMade(t)
}

func (y *try) ConnectFailed(err *weir.ConnectError) {
	if y.over {
		return
	}
	y.over = true
	y.slow.Stop()
	s := y.s
	// The answer of a proxy that was reached is about the destination.
	reached := err.Stage != weir.StageName && err.Stage != weir.StageSocket && err.Stage != weir.StageConnect
	asks := s.asksFor(y.target) && (reached || y.target.endpoint.Kind().Name == "dial")
	if asks {
		y.lease.Release()
	} else {
		y.fails(err)
		y.lease.Failed(err)
		y.next()
	}
	for _, other := range s.tries {
		if !other.over {
			return
		}
	}
	s.ends[relay.B], s.targets[relay.B] = y.target.endpoint, y.target
	s.exhausted = !asks
	if s.exhausted {
		y.target.refused.Add(1)
	}
	if f, ok := s.relay.Protocol(relay.B).(weir.ConnectFailer); ok {
		f.ConnectFailed(err)
	}
}
