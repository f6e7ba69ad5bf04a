package relay

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/weir-io/weir"
)

// TestFlowTable compares the table with a plain one, in which everything is searched
// for.
func TestFlowTable(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		table := newFlowTable()
		used := map[*PacketFlow]int{} // when
		for now := 1; now < 400; now++ {
			ip := netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(6))})
			peer := weir.PacketAddr{IP: netip.AddrPortFrom(ip, uint16(1+rnd.IntN(12)))}
			asked := weir.PacketInfo{Local: netip.AddrFrom4([4]byte{10, 1, 0, byte(rnd.IntN(3))})}
			f := table.of(peer, asked.Local)
			switch {
			case f == nil:
				f = &PacketFlow{peer: peer, asked: asked}
				table.add(f)
				used[f] = now
			case rnd.IntN(3) == 0:
				table.remove(f)
				delete(used, f)
			default:
				table.touch(f)
				used[f] = now
			}
			if table.len() != len(used) {
				t.Fatalf("seed %d: %d flows, %d in the plain table", seed, table.len(), len(used))
			}
			held, last := map[weir.PacketAddr]int{}, map[weir.PacketAddr]int{}
			var oldest *PacketFlow
			for f, at := range used {
				key := share(f.peer)
				held[key]++
				last[key] = max(last[key], at)
				if oldest == nil || at < used[oldest] {
					oldest = f
				}
			}
			if table.oldest() != oldest {
				t.Fatalf("seed %d: oldest %v, not %v", seed, table.oldest(), oldest)
			}
			victim := table.victim()
			if (victim == nil) != (len(used) == 0) {
				t.Fatalf("seed %d: victim %v of %d", seed, victim, len(used))
			}
			for f, at := range used {
				key, mine := share(f.peer), share(victim.peer)
				if held[key] > held[mine] || key == mine && at < used[victim] {
					t.Fatalf("seed %d: %v ends, not %v", seed, victim.peer, f.peer)
				}
			}
			if len(table.holders) != len(held) {
				t.Fatalf("seed %d: %d holders, not %d", seed, len(table.holders), len(held))
			}
		}
	}
	// A /64 is one host's.
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1")
	if share(weir.PacketAddr{IP: netip.AddrPortFrom(a, 1)}) != share(weir.PacketAddr{IP: netip.AddrPortFrom(b, 2)}) {
		t.Error("two addresses of a /64 count apart")
	}
}
