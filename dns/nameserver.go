package dns

import (
	"net/netip"
	"slices"
	"time"
)

// nameServer is what a client has learned about a server.
type nameServer struct {
	heard  time.Time // when it sent something last
	silent time.Time // until when it counts as silent
	edns   bool      // it understands EDNS: one of its replies had an OPT record
	plain  time.Time // until when it is asked without EDNS: it answers only that way
	folds  time.Time // until when the case of its replies is ignored: it changes the case
}

const (
	// silentFor is how long a server that did not answer counts as silent and
	// is asked last, unless it is heard before.
	silentFor = 30 * time.Second
	// habitFor is how long we do not retry something that a server does not
	// understand.
	habitFor = 15 * time.Minute
	// silentTime is how long all servers together have to answer when all of
	// them are silent already: a caller that asks then does not wait for as
	// long as the first did.
	silentTime = 2 * time.Second
	// silentLeast is the least time that each of them has.
	silentLeast = 500 * time.Millisecond
)

func (c *client) server(a netip.AddrPort) *nameServer {
	s := c.servers[a]
	if s == nil {
		s = &nameServer{}
		c.servers[a] = s
	}
	return s
}

func (c *client) silent(a netip.AddrPort) bool {
	s := c.servers[a]
	return s != nil && c.l.Now().Before(s.silent)
}

// allSilent reports whether all servers are silent.
func (c *client) allSilent() bool {
	return !slices.ContainsFunc(c.config.Servers, func(a netip.AddrPort) bool { return !c.silent(a) })
}

// order returns the order in which servers are asked: as configured, or
// beginning with a different one each time, with the silent ones last.
func (c *client) order() []netip.AddrPort {
	all := c.config.Servers
	if len(all) == 1 {
		return all // shared, and never written to
	}
	start := 0
	if c.config.Rotate {
		start = c.first % len(all)
		c.first++
	}
	var up, down []netip.AddrPort
	for i := range all {
		s := all[(start+i)%len(all)]
		if c.silent(s) {
			down = append(down, s)
		} else {
			up = append(up, s)
		}
	}
	return append(up, down...)
}

// hears records that a server has sent something.
func (c *client) hears(a netip.AddrPort) {
	s := c.server(a)
	s.heard, s.silent = c.l.Now(), time.Time{}
	if c.mute {
		c.mute = false
		c.tell(nil)
	}
}

// misses records that a server did not answer an exchange, or cannot be
// reached. A server that has answered others meanwhile is silent about this
// name only.
func (c *client) misses(a netip.AddrPort, since time.Time) {
	s := c.server(a)
	if !s.heard.Before(since) {
		return
	}
	s.silent = c.l.Now().Add(silentFor)
	if !c.mute && c.allSilent() {
		c.mute = true
		c.tell(slices.Clone(c.config.Servers))
	}
}

func (c *client) tell(silent []netip.AddrPort) {
	if f := c.o.silence; f != nil {
		f(c.l, silent)
	}
}

// patience returns how many times all servers are asked, and how long each has
// to answer.
func (c *client) patience() (rounds int, each time.Duration) {
	rounds, each = c.config.Attempts, c.config.Timeout
	if c.allSilent() {
		rounds = min(rounds, 2)
		short := silentTime
		if !c.o.stream { // a connection takes several round trips
			short = max(short/time.Duration(rounds*len(c.config.Servers)), silentLeast)
		}
		each = min(each, short)
	}
	return rounds, each
}
