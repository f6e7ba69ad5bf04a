package layer_test

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weir-io/weir/layer"
)

// TestLimiterLoops: goroutines that stand for loops take and give back places at the same
// time. Neither bound is ever exceeded, no place is lost, and a free place is always given.
func TestLimiterLoops(t *testing.T) {
	const total, each, loops, rounds = 12, 5, 4, 20_000
	l := layer.NewLimiter(layer.LimitConfig{Total: total, PerAddress: each})
	var open atomic.Int64
	var of [4]atomic.Int64
	var told atomic.Int64
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range loops {
		wg.Go(func() {
			<-begin
			r := rand.New(rand.NewPCG(uint64(i), 1))
			var mine []int
			for range rounds {
				if len(mine) > 0 && r.IntN(3) == 0 { // so that there are nearly as many as there can be
					a := mine[0]
					mine = mine[1:]
					open.Add(-1)
					of[a].Add(-1)
					l.Left(netip.AddrFrom4([4]byte{192, 0, 2, byte(a)}))
					continue
				}
				a := r.IntN(len(of))
				if err := l.Admit(netip.AddrFrom4([4]byte{192, 0, 2, byte(a)})); err != nil {
					l.OnRoom(func() { told.Add(1) })
					continue
				}
				mine = append(mine, a)
				if n := open.Add(1); n > total {
					t.Errorf("%d connections, where %d is the bound", n, total)
				}
				if n := of[a].Add(1); n > each {
					t.Errorf("%d connections of one address, where %d is the bound", n, each)
				}
			}
			for _, a := range mine {
				open.Add(-1)
				of[a].Add(-1)
				l.Left(netip.AddrFrom4([4]byte{192, 0, 2, byte(a)}))
			}
		})
	}
	close(begin)
	wg.Wait()
	if l.Count() != 0 {
		t.Errorf("%d places are left at the end", l.Count())
	}
	for range total { // every place is there again, and each address has its own
		if err := l.Admit(netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	if l.Admit(netip.Addr{}) == nil {
		t.Error("one place too many")
	}
	before := told.Load()
	asked := make(chan struct{})
	l.OnRoom(func() { close(asked) })
	l.Left(netip.Addr{})
	<-asked
	if told.Load() < before {
		t.Error("a call was taken back")
	}
	for a := range of {
		for range each {
			l.Left(netip.Addr{})
			if err := l.Admit(netip.AddrFrom4([4]byte{192, 0, 2, byte(a)})); err != nil {
				t.Fatalf("address %d: %v", a, err)
			}
		}
		for range each {
			l.Left(netip.AddrFrom4([4]byte{192, 0, 2, byte(a)}))
			if err := l.Admit(netip.Addr{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// BenchmarkLimiter is a place taken and given back.
func BenchmarkLimiter(b *testing.B) {
	l := layer.NewLimiter(layer.LimitConfig{Total: 1000, Share: 15})
	a := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Admit(a); err != nil {
			b.Fatal(err)
		}
		l.Left(a)
	}
}
