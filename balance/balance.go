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
// the simulator. Balancers of several loops can share their targets (Balancer.On): what
// one counts or finds out then holds for all of them, without a lock.
package balance

import (
	"errors"
	"slices"
	"sync/atomic"
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
	s       *shared
	timer   *weir.Timer
	stopped bool
}

// shared is what the Balancers of several loops have together. Each loop reads and changes
// it while the others do.
type shared struct {
	first   *Balancer // which New made; it checks
	targets atomic.Pointer[[]*target]
	turn    atomic.Int64 // the number of the target whose turn it is
}

func (b *Balancer) targets() []*target { return *b.s.targets.Load() }

// target is changed by all loops. Times are in nanoseconds since 1970, 0: never.
type target struct {
	id       int
	active   atomic.Int64 // leases
	fails    atomic.Int64 // in a row
	ejected  atomic.Int64 // times in a row
	down     atomic.Bool
	until    atomic.Int64 // when a target that is down may be tried again
	failedAt atomic.Int64
	draining atomic.Bool
	drained  atomic.Pointer[func()] // called when it is drained and idle; nil: no one waits for that

	// These are the first Balancer's.
	rises int    // checks in a row that succeeded while it was down
	stop  func() // of the check in progress
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
	b := &Balancer{loop: l, c: c, s: &shared{}}
	b.s.first = b
	b.s.targets.Store(&[]*target{})
	for range n {
		b.Add()
	}
	if c.Check != nil {
		b.timer = l.NewTimer(b.check)
		b.timer.Repeat(c.Every)
	}
	return b
}

// On returns a Balancer for connections on another loop that shares b's targets: the turn,
// the number of leases and what is up or down are those of both. b's Config holds for both,
// with Changed and Rand called on the goroutine of the loop that chooses or finds something
// out, and so on several at once. Only the Balancer that New made checks, adds, drains and
// undrains. Any goroutine may call On.
func (b *Balancer) On(l *weir.Loop) *Balancer { return &Balancer{loop: l, c: b.c, s: b.s} }

// Add adds a target and returns its number: the lowest that was never used. It is the
// Balancer's that New made.
func (b *Balancer) Add() int {
	old := b.targets()
	id := len(old)
	all := append(slices.Clip(old), &target{id: id})
	b.s.targets.Store(&all)
	return id
}

// Drain stops giving a target new connections. done, which may be nil, is called from
// the loop's queue once it has none left. It is the Balancer's that New made.
func (b *Balancer) Drain(id int, done func()) {
	t := b.targets()[id]
	t.draining.Store(true)
	t.drained.Store(nil)
	if done != nil {
		t.drained.Store(&done)
	}
	t.endCheck()
	b.idle(t)
}

// Undrain gives a target connections again. It is the Balancer's that New made.
func (b *Balancer) Undrain(id int) {
	t := b.targets()[id]
	t.draining.Store(false)
	t.drained.Store(nil)
}

// idle calls what waits for a target to be drained, if it is. What draining and active say
// is looked at after one of them has changed, so that one of two loops sees both.
func (b *Balancer) idle(t *target) {
	if !t.draining.Load() || t.active.Load() != 0 {
		return
	}
	done := t.drained.Swap(nil)
	if done == nil {
		return
	}
	if first := b.s.first; b != first {
		_, _ = first.loop.Post(*done) // a closed loop waits for nothing
		return
	}
	b.loop.Soon(*done)
}

// Up reports whether a target is up.
func (b *Balancer) Up(id int) bool { return !b.targets()[id].down.Load() }

// Active is how many leases a target has, on all loops.
func (b *Balancer) Active(id int) int { return int(b.targets()[id].active.Load()) }

// Stop ends the checks. Picking continues, based on what leases report.
func (b *Balancer) Stop() {
	b.stopped = true
	if b.timer == nil {
		return
	}
	b.timer.Stop()
	for _, t := range b.targets() {
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
	for {
		if l, err := b.tryPick(key, tried); l != nil || err != nil {
			return l, err
		}
	}
}

// tryPick is pick; it returns neither if another loop was faster.
func (b *Balancer) tryPick(key uint64, tried []*target) (*Lease, error) {
	now := b.loop.Now().UnixNano()
	var some [8]*target // most have no more, and then there is nothing to allocate
	good := some[:0]
	var last *target
	turn, targets := b.s.turn.Load(), b.targets()
next:
	for i := range targets {
		t := targets[(int(turn)+i)%len(targets)]
		if t.draining.Load() {
			continue
		}
		for _, other := range tried {
			if other == t {
				continue next
			}
		}
		if !t.down.Load() || b.c.Check == nil && now >= t.until.Load() {
			good = append(good, t)
		}
		if last == nil || t.failedAt.Load() < last.failedAt.Load() {
			last = t
		}
	}
	switch {
	case last == nil:
		return nil, ErrNone
	case len(good) == 0:
		good = append(good, last)
	}
	t, has := b.choose(good, key)
	switch b.c.Policy {
	case RoundRobin:
		if !b.s.turn.CompareAndSwap(turn, int64(t.id+1)) {
			return nil, nil // another loop had this turn
		}
		t.active.Add(1)
	case Least, RandomOfTwo:
		if !t.active.CompareAndSwap(has, has+1) {
			return nil, nil // another loop has chosen it: it may not be the least any more
		}
		b.s.turn.Store(int64(t.id + 1))
	default:
		t.active.Add(1)
		b.s.turn.Store(int64(t.id + 1))
	}
	if t.draining.Load() { // since it was looked at
		t.active.Add(-1)
		b.idle(t)
		return nil, nil
	}
	return &Lease{b: b, t: t, tried: tried}, nil
}

// choose chooses among targets listed in the order of their turns, and returns how many
// leases the choice saw.
func (b *Balancer) choose(good []*target, key uint64) (best *target, active int64) {
	best = good[0]
	active = best.active.Load()
	draw := func(n int) int { return min(int(b.c.Rand()*float64(n)), n-1) }
	switch b.c.Policy {
	case Least:
		for _, t := range good[1:] {
			if n := t.active.Load(); n < active {
				best, active = t, n
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
			best, active = good[i], good[i].active.Load()
			if n := good[j].active.Load(); n < active {
				best, active = good[j], n
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
	return best, active
}

// weight says how strongly a target attracts a key: a hash of both, so that a target
// that goes or comes moves its own keys and no others.
func weight(key uint64, id int) uint64 {
	return splitmix.Mix(key ^ uint64(id+1)*splitmix.Gamma)
}

// Up says that the connection was made.
func (l *Lease) Up() {
	t := l.t
	if t.fails.Load() != 0 {
		t.fails.Store(0)
	}
	if t.down.Load() && l.b.c.Check == nil {
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
	l.t.active.Add(-1)
	l.b.idle(l.t)
}

func (b *Balancer) fail(t *target, err error) {
	now := b.loop.Now().UnixNano()
	t.failedAt.Store(now)
	fails := t.fails.Add(1)
	if b == b.s.first {
		t.rises = 0
	}
	if fails < int64(b.c.Fall) {
		return
	}
	if until := t.until.Load(); !t.down.Load() || now >= until {
		n := min(t.ejected.Load()+1, 10)
		if t.until.CompareAndSwap(until, now+n*int64(b.c.Eject)) { // or another loop ejected it
			t.ejected.Store(n)
		}
	}
	if t.down.CompareAndSwap(false, true) {
		b.changed(t, false, err)
	}
}

func (b *Balancer) up(t *target) {
	t.fails.Store(0)
	t.ejected.Store(0)
	if t.down.CompareAndSwap(true, false) {
		b.changed(t, true, nil)
	}
}

func (b *Balancer) changed(t *target, up bool, err error) {
	if b.c.Changed != nil {
		b.c.Changed(t.id, up, err)
	}
}

// check tries every target that is not being tried.
func (b *Balancer) check() {
	for _, t := range b.targets() {
		if t.stop != nil || t.draining.Load() || b.stopped {
			continue
		}
		t.stop = b.c.Check(t.id, func(err error) {
			t.stop = nil
			switch {
			case err != nil:
				b.fail(t, err)
			case t.down.Load():
				if t.rises++; t.rises >= b.c.Rise {
					t.rises = 0
					b.up(t)
				}
			default:
				t.fails.Store(0)
			}
		})
	}
}
