package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// TestAskOn: with one loop that asks for all, what one loop has found all know; a lookup
// from another loop ends once, on that loop; and one that is canceled is not reported.
func TestAskOn(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	be, err := lb.world.Host("client").Backend()
	if err != nil {
		t.Fatal(err)
	}
	other := quietLoop(t, weir.WithBackend(be))
	be.Drive(other)
	lb.s.add("a.test 60 A 192.0.2.1")
	r := lb.resolver()
	r.AskOn(lb.l)
	on := func(l *weir.Loop, name string) *found {
		f := &found{}
		r.LookupNetIP(l, "ip4", name, func(a []netip.Addr, err error) { f.addrs, f.err = a, err; f.n++ })
		lb.until("the addresses", func() bool { return f.n > 0 })
		return f
	}
	for i, l := range []*weir.Loop{other, lb.l, other} {
		if f := on(l, "a.test"); f.err != nil || fmt.Sprint(f.addrs) != "[192.0.2.1]" || f.n != 1 {
			t.Errorf("lookup %d: %v, %v", i, f.addrs, f.err)
		}
	}
	if got := fmt.Sprint(lb.s.queries); got != "[a.test. A udp]" {
		t.Errorf("asked for %s", got)
	}
	if f := on(other, "192.0.2.7"); f.err != nil || fmt.Sprint(f.addrs) != "[192.0.2.7]" {
		t.Errorf("a literal: %v, %v", f.addrs, f.err)
	}
	if f := on(other, "b.test"); !errors.Is(f.err, ErrNotFound) {
		t.Errorf("a name that is not there: %v", f.err)
	}
	never := func([]netip.Addr, error) { t.Error("canceled, and called") }
	r.LookupNetIP(other, "ip4", "c.test", never)() // before the other loop has begun
	cancel := r.LookupNetIP(other, "ip4", "d.test", never)
	c := r.client(lb.l)
	lb.until("the question", func() bool { return len(c.questions) > 0 })
	cancel()
	if err := lb.world.Run(nil); err != nil {
		t.Fatal(err)
	}
	lb.clean(r)
	if err := lb.l.Close(); err != nil {
		t.Error(err)
	}
	f := &found{}
	r.LookupNetIP(other, "ip4", "a.test", func(_ []netip.Addr, err error) { f.err = err; f.n++ })
	lb.until("the failure", func() bool { return f.n > 0 })
	if !errors.Is(f.err, weir.ErrLoopClosed) {
		t.Errorf("after the loop's end: %v", f.err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
}
