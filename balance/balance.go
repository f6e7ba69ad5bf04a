// Package balance chooses among several equivalent targets: which of them the next
// connection goes to, and which are left alone for a while.
//
//	         Pick
//	           │         Lease.Up, Lease.Failed         health checks
//	policy ────┤◀──────────────────────────────────┐         │
//	           ▼                                    │         ▼
//	       a target ──▶ Lease ──▶ the connection ──▶┘   up ⇄ down
//
// It makes no connections itself: a program asks for a target, connects to it, and
// reports the result. Targets are numbers; the program decides what they mean. A
// Balancer belongs to its loop's goroutine and takes its time from there, so it runs in
// the simulator.
package balance

import (
	"errors"
	"slices"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/splitmix"
)

// Policy says which of the targets that are up is picked.
type Policy uint8

// The policies.
const (
	RoundRobin  Policy = iota // each in turn
	Least                     // the one with the fewest connections; among equals in turn
	RandomOfTwo               // the less busy of two drawn at random (Mitzenmacher 2001)
	Random                    // any
	First                     // the first that is up; the others are in reserve
	HashPeer                  // the same target for the same key, while it is up (rendezvous hashing, Thaler and Ravishankar 1998)
)

// Config says how to choose. Every field may be zero.
type Config struct {
	Policy Policy
	// Check tries one target and calls done once, never from inside Check, with nil if
	// the target is well. stop ends the try early; done is not called then. Without
	// Check, only what leases say counts.
	Check func(target int, done func(error)) (stop func())
	// Every is the time between checks of a target: 2 s.
	Every time.Duration
	// Fall is how many failures in a row, of connects or checks, bring a target down,
	// and Rise how many successful checks in a row bring it up again: 1 and 1.
	Fall, Rise int
	// Eject is the least time that a failed target stays down if there is no Check to
	// bring it up: 5 s, longer each time in a row, up to ten times that. After that the
	// next connection tries it again.
	Eject time.Duration
	// Changed is called when a target goes down, with the failure, or comes up.
	Changed func(target int, up bool, err error)
	// Rand draws from [0, 1); it is needed for Random and RandomOfTwo.
	Rand func() float64
}

// ErrNone is returned by Pick if there is no target left to try.
var ErrNone = errors.New("balance: every target was tried, or is being drained")

// Balancer chooses among targets.
type Balancer struct {
	loop    *weir.Loop
	c       Config
	targets []*target
	turn    int
	timer   *weir.Timer
	stopped bool
}

type target struct {
	id       int
	active   int // leases
	fails    int // in a row
	rises    int // checks in a row that succeeded while it was down
	ejected  int // times in a row
	down     bool
	until    time.Time // when a target that is down may be tried again
	failedAt time.Time
	drained  func() // called when it is drained and idle
	draining bool
	stop     func() // of the check in progress
}

// New makes a balancer over targets 0 to n-1, all of them up. Checks begin at
// once.
func New(l *weir.Loop, n int, c Config) *Balancer {
	if c.Every <= 0 {
		c.Every = 2 * time.Second
	}
	if c.Eject <= 0 {
		c.Eject = 5 * time.Second
	}
	c.Fall, c.Rise = max(c.Fall, 1), max(c.Rise, 1)
	b := &Balancer{loop: l, c: c}
	for range n {
		b.Add()
	}
	if c.Check != nil {
		b.timer = l.NewTimer(b.check)
		b.timer.Repeat(c.Every)
	}
	return b
}

// Add adds a target and returns its number: the lowest that was never used.
func (b *Balancer) Add() int {
	id := len(b.targets)
	b.targets = append(b.targets, &target{id: id})
	return id
}

// Drain stops giving a target new connections. done, which may be nil, is called from
// the loop's queue once it has none left.
func (b *Balancer) Drain(id int, done func()) {
	t := b.targets[id]
	t.draining = true
	t.drained = done
	t.endCheck()
	b.idle(t)
}

// Undrain gives a target connections again.
func (b *Balancer) Undrain(id int) {
	b.targets[id].draining, b.targets[id].drained = false, nil
}

func (b *Balancer) idle(t *target) {
	if t.draining && t.active == 0 && t.drained != nil {
		b.loop.Soon(t.drained)
		t.drained = nil
	}
}

// Up reports whether a target is up.
func (b *Balancer) Up(id int) bool { return !b.targets[id].down }

// Active is how many leases a target has.
func (b *Balancer) Active(id int) int { return b.targets[id].active }

// Stop ends the checks. Picking continues, based on what leases report.
func (b *Balancer) Stop() {
	b.stopped = true
	if b.timer != nil {
		b.timer.Stop()
	}
	for _, t := range b.targets {
		t.endCheck()
	}
}

func (t *target) endCheck() {
	if t.stop != nil {
		t.stop()
		t.stop = nil
	}
}

// Lease is one connection's hold on a target. Release ends it.
type Lease struct {
	b      *Balancer
	t      *target
	tried  []*target // targets tried before this one, for the same connection
	over   bool
	failed bool
}

// Target is the target's number.
func (l *Lease) Target() int { return l.t.id }

// Pick chooses a target for a new connection. key identifies the peer for HashPeer, and
// is ignored otherwise. A target that is down is chosen only if none is up; it is then
// the one that failed longest ago, as some connection has to find out whether it works
// again. The error is ErrNone.
func (b *Balancer) Pick(key uint64) (*Lease, error) { return b.pick(key, nil) }

// Next gives l up and chooses another target for the same connection, none of
// which was tried for it before. The error is ErrNone.
func (l *Lease) Next(key uint64) (*Lease, error) {
	l.Release()
	return l.Also(key)
}

// Also chooses as Next does and keeps l: both targets are tried at once, and the
// one that is not used is released. The error is ErrNone.
func (l *Lease) Also(key uint64) (*Lease, error) {
	return l.b.pick(key, append(slices.Clip(l.tried), l.t))
}

func (b *Balancer) pick(key uint64, tried []*target) (*Lease, error) {
	now := b.loop.Now()
	var some [8]*target // most have no more, and then there is nothing to allocate
	good := some[:0]
	var last *target
next:
	for i := range b.targets {
		t := b.targets[(b.turn+i)%len(b.targets)]
		if t.draining {
			continue
		}
		for _, other := range tried {
			if other == t {
				continue next
			}
		}
		if !t.down || b.c.Check == nil && !now.Before(t.until) {
			good = append(good, t)
		}
		if last == nil || t.failedAt.Before(last.failedAt) {
			last = t
		}
	}
	switch {
	case last == nil:
		return nil, ErrNone
	case len(good) == 0:
		good = append(good, last)
	}
	t := b.choose(good, key)
	b.turn = t.id + 1
	t.active++
	return &Lease{b: b, t: t, tried: tried}, nil
}

// choose chooses among targets listed in the order of their turns.
func (b *Balancer) choose(good []*target, key uint64) *target {
	best := good[0]
	draw := func(n int) int { return min(int(b.c.Rand()*float64(n)), n-1) }
	switch b.c.Policy {
	case Least:
		for _, t := range good {
			if t.active < best.active {
				best = t
			}
		}
	case First:
		for _, t := range good {
			if t.id < best.id {
				best = t
			}
		}
	case Random:
		best = good[draw(len(good))]
	case RandomOfTwo:
		if len(good) > 1 {
			i, j := draw(len(good)), draw(len(good)-1)
			if j >= i {
				j++
			}
			if best = good[i]; good[j].active < best.active {
				best = good[j]
			}
		}
	case HashPeer:
		for _, t := range good {
			if weight(key, t.id) > weight(key, best.id) {
				best = t
			}
		}
	case RoundRobin:
	}
	return best
}

// weight says how strongly a target attracts a key: a hash of both, so that a target
// that goes or comes moves its own keys and no others.
func weight(key uint64, id int) uint64 {
	return splitmix.Mix(key ^ uint64(id+1)*splitmix.Gamma)
}

// Up says that the connection was made.
func (l *Lease) Up() {
	t := l.t
	t.fails = 0
	if t.down && l.b.c.Check == nil {
		l.b.up(t)
	}
}

// Failed says that the connection could not be made, and gives the lease up.
func (l *Lease) Failed(err error) {
	if !l.over && !l.failed {
		l.failed = true
		l.b.fail(l.t, err)
	}
	l.Release()
}

// Release ends the lease: the connection is gone. Calling it again has no effect.
func (l *Lease) Release() {
	if l.over {
		return
	}
	l.over = true
	l.t.active--
	l.b.idle(l.t)
}

func (b *Balancer) fail(t *target, err error) {
	now := b.loop.Now()
	t.failedAt = now
	t.fails++
	t.rises = 0
	if t.fails < b.c.Fall {
		return
	}
	if !t.down || !now.Before(t.until) {
		t.ejected = min(t.ejected+1, 10)
		t.until = now.Add(time.Duration(t.ejected) * b.c.Eject)
	}
	if !t.down {
		t.down = true
		b.changed(t, err)
	}
}

func (b *Balancer) up(t *target) {
	t.down, t.fails, t.rises, t.ejected = false, 0, 0, 0
	b.changed(t, nil)
}

func (b *Balancer) changed(t *target, err error) {
	if b.c.Changed != nil {
		b.c.Changed(t.id, !t.down, err)
	}
}

// check tries every target that is not being tried.
func (b *Balancer) check() {
	for _, t := range b.targets {
		if t.stop != nil || t.draining || b.stopped {
			continue
		}
		t.stop = b.c.Check(t.id, func(err error) {
			t.stop = nil
			switch {
			case err != nil:
				b.fail(t, err)
			case t.down:
				if t.rises++; t.rises >= b.c.Rise {
					b.up(t)
				}
			default:
				t.fails = 0
			}
		})
	}
}
