package weirtest_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// TestSourcesOfGroups: the simulator's network has sources of groups, hops and senders
// that their own host does not hear, as others have (R51).
func TestSourcesOfGroups(t *testing.T) {
	sim := weirtest.NewSim(t, 1)
	addrB := netip.MustParseAddr("10.0.0.2")
	la, lb := sim.Host("a", netip.MustParseAddr("10.0.0.1")).NewLoop(), sim.Host("b", addrB).NewLoop()
	group := netip.MustParseAddr("232.7.7.7")
	var got []string
	listen := func(l *weir.Loop, at string, opts ...weir.PacketOption) *weir.PacketEndpoint {
		e, err := l.ListenPacket("udp4", at, weir.PacketFunc(func(_ *weir.PacketEndpoint, p []byte, _ weir.PacketAddr) {
			got = append(got, string(p))
		}).Protocol(), opts...)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	member := listen(la, "0.0.0.0:7000")
	own := func(l *weir.Loop, opts ...weir.PacketOption) *weir.PacketEndpoint {
		return listen(l, "0.0.0.0:0", opts...)
	}
	ea, eb := own(la), own(lb)
	to := weir.PacketAddr{IP: netip.AddrPortFrom(group, 7000)}
	say := func(s string, e *weir.PacketEndpoint) {
		t.Helper()
		if err := e.SendTo([]byte(s), to); err != nil {
			t.Fatal(err)
		}
		if err := sim.RunFor(time.Second); err != nil {
			t.Fatal(err)
		}
	}
	join := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	join(member.JoinSource(group, addrB, ""))
	say("from b", eb)
	say("from a, not asked for", ea)
	join(member.LeaveSource(group, addrB, ""))
	say("from b, left", eb)
	join(member.JoinGroup(group, ""))
	say("from a", ea)
	say("from b again", eb)
	say("no hop from b", own(lb, weir.WithMulticastHops(0)))
	say("no hop from a", own(la, weir.WithMulticastHops(0)))
	say("not for a", own(la, weir.WithMulticastLoop(false)))
	if want := []string{"from b", "from a", "from b again", "no hop from a"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
