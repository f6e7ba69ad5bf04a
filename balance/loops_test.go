package balance_test

import (
	"sync"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/balance"
	"github.com/weir-io/weir/weirtest"
)

// TestOnLoops: what a Balancer of one loop counts or finds out holds for those of others.
func TestOnLoops(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	h := s.Host("here")
	var changes []bool
	b := balance.New(h.Loop(), 3, balance.Config{Changed: func(_ int, up bool, _ error) { changes = append(changes, up) }})
	c := b.On(h.NewLoop())
	one, two, three := pick(t, b, 0), pick(t, c, 0), pick(t, b, 0)
	if one.Target() != 0 || two.Target() != 1 || three.Target() != 2 {
		t.Errorf("in turn, two loops pick %d, %d, %d", one.Target(), two.Target(), three.Target())
	}
	if c.Active(0) != 1 || b.Active(1) != 1 {
		t.Errorf("%d and %d leases", c.Active(0), b.Active(1))
	}
	two.Failed(errDown)
	if b.Up(1) || c.Up(1) || len(changes) != 1 {
		t.Errorf("a target that failed on the other loop: up %v, %v, told %v", b.Up(1), c.Up(1), changes)
	}
	for range 6 {
		l := pick(t, b, 0)
		if l.Target() == 1 {
			t.Error("it was picked")
		}
		l.Release()
	}
	again := pick(t, b, 0)
	for again.Target() != 0 {
		again.Release()
		again = pick(t, b, 0)
	}
	drained := false
	b.Drain(0, func() { drained = true })
	again.Release()
	if drained {
		t.Error("drained with a lease left")
	}
	one.Release()
	s.Until("the drain", func() bool { return drained })
	for range 4 {
		if l := pick(t, c, 0); l.Target() == 0 {
			t.Error("a drained target was picked on the other loop")
		}
	}
}

// TestDrainElsewhere: a target is drained when its last connection on another loop is gone,
// and the loop that asked is told.
func TestDrainElsewhere(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	h := s.Host("here")
	b := balance.New(h.Loop(), 2, balance.Config{})
	c := b.On(h.NewLoop())
	l := pick(t, c, 0)
	drained := false
	b.Drain(l.Target(), func() { drained = true })
	if s.Run(nil) != nil || drained {
		t.Fatal("drained with a lease left")
	}
	l.Release()
	s.Until("the drain", func() bool { return drained })
}

// TestLoopsAtOnce: loops pick at the same time. In turn, each target gets exactly as many;
// by the fewest connections, none gets further ahead than there are loops; every lease is
// counted.
func TestLoopsAtOnce(t *testing.T) {
	const loops, targets, each = 4, 3, 9000
	for _, policy := range []balance.Policy{balance.RoundRobin, balance.Least} {
		var all []*balance.Balancer
		for i := range loops {
			l, err := weir.NewLoop()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			if i == 0 {
				all = append(all, balance.New(l, targets, balance.Config{Policy: policy}))
			} else {
				all = append(all, all[0].On(l))
			}
		}
		var wg sync.WaitGroup
		leases := make([][]*balance.Lease, loops)
		for i, b := range all {
			wg.Go(func() {
				for range each {
					l, err := b.Pick(0)
					if err != nil {
						t.Error(err)
						return
					}
					leases[i] = append(leases[i], l)
				}
			})
		}
		wg.Wait()
		for id := range targets {
			n, even, off := all[0].Active(id), loops*each/targets, 0
			if policy == balance.Least {
				off = loops
			}
			if n < even-off || n > even+off {
				t.Errorf("policy %d: target %d has %d of %d", policy, id, n, loops*each)
			}
		}
		for i := range all {
			wg.Go(func() {
				for _, l := range leases[i] {
					l.Release()
				}
			})
		}
		wg.Wait()
		for id := range targets {
			if n := all[0].Active(id); n != 0 {
				t.Errorf("policy %d: target %d has %d in the end", policy, id, n)
			}
		}
	}
}
