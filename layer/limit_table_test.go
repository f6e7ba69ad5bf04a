package layer

import (
	"net/netip"
	"testing"
)

// TestLimiterForgets: addresses that have no connections any more take no room beyond a
// bound, however many there were; those that have some are never forgotten.
func TestLimiterForgets(t *testing.T) {
	const stay, come = 500, 200_000
	l := NewLimiter(LimitConfig{Total: 1 << 20, PerAddress: 1})
	addr := func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	for i := range come {
		if err := l.Admit(addr(i)); err != nil {
			t.Fatal(err)
		}
		if i >= stay {
			l.Left(addr(i))
		}
	}
	nodes := 0
	for i := range l.each.buckets {
		for n := l.each.buckets[i].Load(); n != nil; n = n.next {
			nodes++
		}
	}
	if most := 2*stay + bucketsMost*(unusedInBucket+1); nodes > most {
		t.Errorf("%d addresses are kept for %d that have connections; %d is the bound", nodes, stay, most)
	}
	if l.Count() != stay {
		t.Errorf("%d connections are counted", l.Count())
	}
	for i := range stay {
		if l.Admit(addr(i)) == nil {
			t.Fatalf("address %d has two connections", i)
		}
	}
}
