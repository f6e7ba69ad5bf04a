package packet

import (
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// TestFlowsBounded: a table of flows never has more than its bound, forgets the one that
// was silent for longest, and takes both spellings of an IPv4 address for one.
func TestFlowsBounded(t *testing.T) {
	var gone []uint16
	f := newFlows(3, func(w *flow[int]) { gone = append(gone, w.peer.IP.Port()) })
	at := func(port uint16) weir.PacketAddr {
		return weir.PacketAddr{IP: netip.AddrPortFrom(netip.MustParseAddr("::ffff:192.0.2.1"), port)}
	}
	now := time.Unix(0, 0)
	for port := range uint16(3) {
		f.add(at(port), now)
	}
	if f.find(weir.PacketAddr{IP: netip.MustParseAddrPort("192.0.2.1:0")}, now) == nil {
		t.Error("the other spelling is another flow")
	}
	f.find(at(1), now)
	for port := range uint16(3) {
		f.add(at(10+port), now)
		if len(f.all) != 3 {
			t.Errorf("%d flows", len(f.all))
		}
	}
	f.forgetAll()
	want := []uint16{2, 0, 1, 10, 11, 12}
	for i, port := range want {
		if i >= len(gone) || gone[i] != port {
			t.Fatalf("forgot %v, want %v", gone, want)
		}
	}
	if len(gone) != len(want) || len(f.all) != 0 || f.first != nil || f.last != nil {
		t.Error("something is left", gone, f)
	}
}
