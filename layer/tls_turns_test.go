package layer

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestTurns: whatever is pushed and removed, each line is served first come,
// first served, and the lines take turns.
func TestTurns(t *testing.T) {
	var q turns
	one := func(peer, n int) *handshake {
		return &handshake{peer: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(peer)}), 32), buf: []byte(fmt.Sprint(peer, "-", n))}
	}
	var all []*handshake
	for n := range 4 {
		for peer := range 3 {
			if peer > 0 && n > 1 {
				continue // the first address has more
			}
			h := one(peer, n)
			q.push(h)
			all = append(all, h)
		}
	}
	q.remove(all[4]) // the second handshake of the second address
	got := ""
	for q.n > 0 {
		got += string(q.pop().buf) + " "
	}
	if want := "0-0 1-0 2-0 0-1 2-1 0-2 0-3 "; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if len(q.lines) != 0 || q.order.Len() != 0 {
		t.Errorf("%d lines stay", len(q.lines))
	}
}

// TestHolders: whatever was given and taken, it is known which address has the
// most places, and which of its handshakes moved longest ago.
func TestHolders(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var hs holders
	var have []*handshake
	for range 20_000 {
		if len(have) > 0 && rnd.IntN(100) < 48 {
			i := rnd.IntN(len(have))
			hs.take(have[i])
			have = append(have[:i], have[i+1:]...)
		} else {
			h := &handshake{peer: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(12))}), 32)}
			hs.give(h)
			have = append(have, h)
		}
		count, most := map[netip.Prefix]int{}, 0
		for _, h := range have {
			count[h.peer]++
			most = max(most, count[h.peer])
		}
		if hs.n != len(have) || hs.top != most || len(hs.byKey) != len(count) {
			t.Fatalf("%d places, top %d, %d addresses; want %d, %d, %d", hs.n, hs.top, len(hs.byKey), len(have), most, len(count))
		}
		if most == 0 {
			continue
		}
		r := hs.most()
		if r.places != most || count[r.peer] != most {
			t.Fatalf("%v has %d", r.peer, count[r.peer])
		}
		for _, h := range have {
			if h.peer == r.peer {
				if r.own.first != h {
					t.Fatal("its first is not the one that came first")
				}
				break
			}
		}
	}
}
