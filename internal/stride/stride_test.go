package stride

import (
	"math/rand/v2"
	"testing"
)

// TestShares: nodes that always have entries run as their shares say, exactly where costs
// are equal, and nested ones within what the one around them gets.
func TestShares(t *testing.T) {
	var root, a, b, c, d Node[string]
	root.Init("root", nil)
	a.Init("a", &root)
	b.Init("b", &root)
	c.Init("c", &a)
	d.Init("d", &a)
	a.SetShare(3)
	b.SetShare(2)
	d.SetShare(2)
	ran := map[string]int{}
	for _, n := range []*Node[string]{&a, &b, &c, &d} {
		n.Add()
	}
	const rounds = 1000
	for range 5 * 4 * rounds {
		n, _ := root.Pick(1)
		n.Charge(1)
		ran[n.Owner]++
	}
	// a's three fifths are divided among itself, c and twice d.
	for name, want := range map[string]int{"a": 3 * rounds, "b": 8 * rounds, "c": 3 * rounds, "d": 6 * rounds} {
		if ran[name] < want-2 || ran[name] > want+2 {
			t.Errorf("%s ran %d times, want %d", name, ran[name], want)
		}
	}
}

// TestLag: whatever comes, goes and costs what it likes, nodes that wait are never
// further apart than two entries over their shares, through set-backs too; and who comes
// back has saved nothing.
func TestLag(t *testing.T) {
	const nodes = 20
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var root Node[int]
		root.Init(-1, nil)
		all := make([]Node[int], nodes)
		used := make([]float64, nodes) // over the share, while it always waited
		since := make([]bool, nodes)
		longest := 0.0
		for i := range all {
			all[i].Init(i, &root)
			all[i].SetShare(1 + r.IntN(Most))
			all[i].Add()
		}
		for step := uint64(1); step < 20_000; step++ {
			if step == 10_000 {
				root.now = passMost + 1 // as after some hours
				for i := range all {
					all[i].pass += passMost + 1
				}
			}
			n, look := root.Pick(step)
			if look || n == nil {
				t.Fatalf("seed %d, step %d: nothing is to run", seed, step)
			}
			for i := range all {
				if all[i].Entries() > 0 && all[i].pass < n.pass {
					t.Fatalf("seed %d, step %d: %d runs at %d before %d at %d", seed, step, n.Owner, n.pass, i, all[i].pass)
				}
			}
			cost := 1 + r.Int64N(1000)
			n.Charge(cost)
			x := float64(cost) / float64(n.Share())
			used[n.Owner] += x
			longest = max(longest, x)
			if r.IntN(50) == 0 { // it goes, and the next deal does not wait for it
				n.Take(step)
				since[n.Owner] = true
			}
			if i := r.IntN(nodes); all[i].Entries() == 0 && r.IntN(3) == 0 {
				all[i].Add()
			}
			if root.Entries() == 0 && len(root.heap) == 0 {
				all[0].Add()
			}
		}
		for i := range all {
			for j := range all {
				if !since[i] && !since[j] && used[i]-used[j] > 2*longest {
					t.Errorf("seed %d: %d is %f ahead of %d", seed, i, used[i]-used[j], j)
				}
			}
		}
	}
}

// TestDry: one that has run out of entries keeps its turn for as long as it is asked to,
// and no longer.
func TestDry(t *testing.T) {
	var root, a, b Node[string]
	root.Init("root", nil)
	a.Init("a", &root)
	b.Init("b", &root)
	a.Add()
	b.Add()
	n, _ := root.Pick(7)
	n.Take(7)
	other := &a
	if n == &a {
		other = &b
	}
	n.Charge(1)
	other.Charge(5)
	if next, look := root.Pick(7); next != nil || !look {
		t.Errorf("%v is next, look %v", next, look)
	}
	if next, look := root.Pick(8); next != other || look {
		t.Errorf("%v is next, look %v", next, look)
	}
	other.Drop()
	if next, look := root.Pick(8); next != nil || look {
		t.Errorf("nothing is left, and %v is next, look %v", next, look)
	}
}

// TestIdle: one that comes back after others have run for long gets its share from then on,
// and no more.
func TestIdle(t *testing.T) {
	var root, a, b Node[string]
	root.Init("root", nil)
	a.Init("a", &root)
	b.Init("b", &root)
	a.Add()
	for range 1000 {
		n, _ := root.Pick(1)
		n.Charge(1)
	}
	b.Add()
	ran := 0
	for range 100 {
		n, _ := root.Pick(1)
		n.Charge(1)
		if n == &b {
			ran++
		}
	}
	if ran < 49 || ran > 51 {
		t.Errorf("of 100 turns it had %d", ran)
	}
}
