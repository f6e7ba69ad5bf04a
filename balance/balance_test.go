package balance_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/balance"
	"github.com/weir-io/weir/weirtest"
)

var errDown = errors.New("down")

func loop(t *testing.T) (*weirtest.Sim, *weir.Loop) {
	s := weirtest.NewSim(t, 1)
	return s, s.Host("here").Loop()
}

// draws gives the numbers of a fixed generator.
func draws() func() float64 {
	x := uint64(1)
	return func() float64 {
		x = x*6364136223846793005 + 1442695040888963407
		return float64(x>>11) / (1 << 53)
	}
}

func pick(t *testing.T, b *balance.Balancer, key uint64) *balance.Lease {
	t.Helper()
	l, err := b.Pick(key)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestPolicies: what each policy picks of three targets with 5, 0 and 2
// connections.
func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		policy balance.Policy
		check  func(got []int) bool
	}{
		{balance.RoundRobin, func(got []int) bool { return slices.Equal(got[:6], []int{0, 1, 2, 0, 1, 2}) }},
		{balance.First, func(got []int) bool { return !slices.ContainsFunc(got, func(n int) bool { return n != 0 }) }},
		{balance.Least, func(got []int) bool {
			return slices.Equal(got[:4], []int{1, 1, 1, 2}) || slices.Equal(got[:4], []int{1, 1, 2, 1})
		}},
		{balance.Random, func(got []int) bool {
			return slices.Contains(got, 0) && slices.Contains(got, 1) && slices.Contains(got, 2)
		}},
		{balance.RandomOfTwo, func(got []int) bool {
			n := 0
			for _, g := range got {
				if g == 0 {
					n++
				}
			}
			return n < len(got)/3 && slices.Contains(got, 1)
		}},
	} {
		_, l := loop(t)
		// The connections are placed while the balancer has none of its own yet.
		b := balance.New(l, 3, balance.Config{Policy: c.policy, Rand: draws()})
		for id, n := range []int{5, 0, 2} {
			if c.policy != balance.Least && c.policy != balance.RandomOfTwo {
				break
			}
			lay(t, b, id, n)
		}
		var got []int
		for range 12 {
			got = append(got, pick(t, b, 0).Target())
		}
		if !c.check(got) {
			t.Errorf("policy %d picks %v", c.policy, got)
		}
	}
}

// lay gives a target n connections.
func lay(t *testing.T, b *balance.Balancer, id, n int) {
	t.Helper()
	for b.Active(id) < n {
		l := pick(t, b, 0)
		var others []*balance.Lease
		for l.Target() != id {
			others = append(others, l)
			l = pick(t, b, 0)
		}
		for _, o := range others {
			o.Release()
		}
	}
}

// TestHashPeer: a key has its target; if that goes down, its keys and no others move,
// and later come back.
func TestHashPeer(t *testing.T) {
	_, l := loop(t)
	b := balance.New(l, 5, balance.Config{Policy: balance.HashPeer})
	where := func() (m [1000]int) {
		for key := range m {
			lease := pick(t, b, uint64(key))
			m[key] = lease.Target()
			lease.Release()
		}
		return m
	}
	before := where()
	var share [5]int
	for _, id := range before {
		share[id]++
	}
	for id, n := range share {
		if n < 120 || n > 280 {
			t.Errorf("target %d has %d of 1,000 keys", id, n)
		}
	}
	b.Drain(3, nil)
	for key, id := range where() {
		if before[key] != 3 && id != before[key] {
			t.Fatalf("key %d moved from %d to %d though 3 went", key, before[key], id)
		}
		if id == 3 {
			t.Fatal("a drained target was picked")
		}
	}
	b.Undrain(3)
	if where() != before {
		t.Error("the keys did not come back")
	}
}

// TestEjection: a target that fails is passed over, longer each time, and comes back
// with a connection that succeeds; if all have failed, the one that failed longest ago
// is tried.
func TestEjection(t *testing.T) {
	s, l := loop(t)
	var changes []bool
	b := balance.New(l, 2, balance.Config{Eject: time.Second, Changed: func(id int, up bool, _ error) {
		if id == 0 {
			changes = append(changes, up)
		}
	}})
	advance := func(d time.Duration) {
		t.Helper()
		over := false
		l.After(d, func() { over = true })
		s.Until("time to pass", func() bool { return over })
	}
	tries := func() (n int) { // how often target 0 is tried in ten picks
		for range 10 {
			lease := pick(t, b, 0)
			if lease.Target() == 0 {
				n++
				lease.Failed(errDown)
				continue
			}
			lease.Up()
			lease.Release()
		}
		return n
	}
	if n := tries(); n != 1 || b.Up(0) || !b.Up(1) {
		t.Errorf("tried %d times, up %v and %v", n, b.Up(0), b.Up(1))
	}
	advance(999 * time.Millisecond)
	if n := tries(); n != 0 {
		t.Errorf("tried %d times while it was ejected", n)
	}
	advance(2 * time.Millisecond)
	if n := tries(); n != 1 {
		t.Errorf("tried %d times after its time", n)
	}
	advance(1500 * time.Millisecond)
	if n := tries(); n != 0 {
		t.Errorf("tried %d times: the second time lasts longer", n)
	}
	advance(time.Second)
	for range 2 {
		lease := pick(t, b, 0)
		lease.Up()
		lease.Release()
	}
	if !b.Up(0) || !slices.Equal(changes, []bool{false, true}) {
		t.Errorf("up %v, changes %v", b.Up(0), changes)
	}

	for range 2 {
		pick(t, b, 0).Failed(errDown)
		advance(time.Millisecond)
	}
	oldest := pick(t, b, 0)
	other, err := oldest.Next(0)
	if err != nil || other.Target() == oldest.Target() {
		t.Fatalf("%v", err)
	}
	if _, err := other.Next(0); !errors.Is(err, balance.ErrNone) {
		t.Errorf("after both: %v", err)
	}
	if b.Active(0) != 0 || b.Active(1) != 0 {
		t.Errorf("%d and %d connections left", b.Active(0), b.Active(1))
	}
}

// TestAlso: two targets at once for one connection, never the same one twice.
func TestAlso(t *testing.T) {
	_, l := loop(t)
	b := balance.New(l, 3, balance.Config{Policy: balance.First})
	one := pick(t, b, 0)
	two, err := one.Also(0)
	if err != nil || two.Target() == one.Target() || b.Active(one.Target()) != 1 || b.Active(two.Target()) != 1 {
		t.Fatalf("%v, targets %d and %d", err, one.Target(), two.Target())
	}
	three, err := two.Next(0)
	if err != nil || three.Target() == one.Target() || three.Target() == two.Target() || b.Active(two.Target()) != 0 {
		t.Fatalf("%v, target %d", err, three.Target())
	}
	if _, err := three.Also(0); !errors.Is(err, balance.ErrNone) {
		t.Errorf("all were tried: %v", err)
	}
	one.Release()
	three.Up()
	if b.Active(one.Target()) != 0 || b.Active(three.Target()) != 1 {
		t.Errorf("%d and %d connections", b.Active(one.Target()), b.Active(three.Target()))
	}
}

// TestChecks: checks bring a target down and up, in rows of Fall and Rise, and
// never two at once.
func TestChecks(t *testing.T) {
	s, l := loop(t)
	well, running, most, checks := true, 0, 0, 0
	var changes []bool
	b := balance.New(l, 1, balance.Config{
		Every: time.Second, Fall: 3, Rise: 2,
		Changed: func(_ int, up bool, _ error) { changes = append(changes, up) },
		Check: func(_ int, done func(error)) func() {
			checks++
			running++
			most = max(most, running)
			c := l.After(2500*time.Millisecond, func() {
				running--
				if well {
					done(nil)
				} else {
					done(errDown)
				}
			})
			return func() { running--; c.Stop() }
		},
	})
	at := func(n int) { t.Helper(); s.Until("checks", func() bool { return checks >= n }) }
	at(3)
	if !b.Up(0) {
		t.Error("down though every check went well")
	}
	well = false
	at(8)
	if b.Up(0) || most != 1 {
		t.Errorf("up %v, %d checks at once", b.Up(0), most)
	}
	if lease := pick(t, b, 0); lease.Target() != 0 {
		t.Error("somebody has to find out")
	} else {
		lease.Up() // a connection does not count as a check: Rise is two
		lease.Release()
	}
	if b.Up(0) {
		t.Error("up by a connection, though checks decide")
	}
	well = true
	at(13)
	if !b.Up(0) || !slices.Equal(changes, []bool{false, true}) {
		t.Errorf("up %v, changes %v", b.Up(0), changes)
	}
	b.Stop()
	n := checks
	if err := s.RunFor(time.Minute); err != nil {
		t.Fatal(err)
	}
	if checks != n || running != 0 {
		t.Errorf("%d checks after Stop, %d running", checks-n, running)
	}
}

// TestDrain: no new connections, and a callback when the last one is gone.
func TestDrain(t *testing.T) {
	s, l := loop(t)
	b := balance.New(l, 2, balance.Config{})
	one, two := pick(t, b, 0), pick(t, b, 0)
	drained := 0
	b.Drain(one.Target(), func() { drained++ })
	for range 4 {
		lease := pick(t, b, 0)
		if lease.Target() == one.Target() {
			t.Error("a drained target was picked")
		}
		lease.Release()
	}
	two.Release()
	if err := s.RunFor(time.Second); err != nil || drained != 0 {
		t.Errorf("%v, drained %d times with a connection open", err, drained)
	}
	one.Release()
	one.Release()
	s.Until("drained", func() bool { return drained == 1 })
	b.Drain(two.Target(), nil)
	if _, err := b.Pick(0); !errors.Is(err, balance.ErrNone) {
		t.Errorf("all are drained: %v", err)
	}
}
