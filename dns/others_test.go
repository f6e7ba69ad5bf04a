package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

func TestStatic(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	r := Static(map[string][]netip.Addr{"Box": {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}})
	for _, c := range []struct{ network, host, want string }{
		{"ip", "box.", "[192.0.2.1 2001:db8::1]"}, {"ip6", "BOX", "[2001:db8::1]"}, {"ip", "other", "[]"},
	} {
		f := &found{}
		r.LookupNetIP(lb.l, c.network, c.host, func(a []netip.Addr, err error) { f.addrs, f.err = a, err; f.n++ })
		if f.n != 0 {
			t.Error("called from inside")
		}
		lb.until("it", func() bool { return f.n == 1 })
		if got := fmt.Sprint(f.addrs); got != c.want || (f.err != nil) != (c.want == "[]") {
			t.Errorf("%s %s: %s, %v", c.network, c.host, got, f.err)
		}
	}
	r.LookupNetIP(lb.l, "ip", "box", func([]netip.Addr, error) { t.Error("canceled, and called") })()
	if err := lb.world.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestSystem(t *testing.T) {
	l := quietLoop(t)
	defer l.Close()
	f := &found{}
	r := System(0)
	r.LookupNetIP(l, "ip4", "localhost", func(a []netip.Addr, err error) { f.addrs, f.err = a, err; l.Stop() })
	r.LookupNetIP(l, "ip4", "localhost", func([]netip.Addr, error) { t.Error("canceled, and called") })()
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	if f.err != nil || len(f.addrs) == 0 || !f.addrs[0].IsLoopback() {
		t.Errorf("%v, %v", f.addrs, f.err)
	}
}

func TestOrderSRV(t *testing.T) {
	rec := func(priority, weight uint16, target string) Record {
		return Record{Type: SRV, Priority: priority, Weight: weight, Target: target}
	}
	all := []Record{rec(2, 0, "last."), rec(1, 30, "a."), rec(1, 10, "b."), rec(1, 0, "z."), rec(1, 5, "."), {Type: A}}
	firsts := map[string]int{}
	random := chacha(1)
	const n = 20_000
	for range n {
		got := OrderSRV(all, random)
		if len(got) != 4 || got[3].Target != "last." {
			t.Fatalf("%v", got)
		}
		firsts[got[0].Target]++
	}
	// One draw in 41 goes to z: RFC 2782 gives records of weight 0 a small
	// chance.
	for target, share := range map[string]float64{"a.": 30.0 / 41, "b.": 10.0 / 41, "z.": 1.0 / 41} {
		if got := float64(firsts[target]) / n; got < share-0.02 || got > share+0.02 {
			t.Errorf("%s was first in %.3f of the cases, want %.3f", target, got, share)
		}
	}
}

// TestConnectByName: a loop with the resolver connects by name, and an error
// says which name does not exist (R48; behaviour 68 for what the hosts file
// has).
func TestConnectByName(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		lb.s.add("server.test 60 A " + lb.s.addr.Addr().String())
		// The lab's loops have no resolver: ask one as a connect would.
		r := lb.resolver()
		f := lb.host(r, "ip", "server.test")
		if f.err != nil || len(f.addrs) != 1 || f.addrs[0] != lb.s.addr.Addr() {
			t.Fatalf("%v, %v", f.addrs, f.err)
		}
	})
	w := sim.New(1, sim.Config{})
	be, err := w.Host("client").Backend()
	if err != nil {
		t.Fatal(err)
	}
	server, err := w.Host("server").Backend()
	if err != nil {
		t.Fatal(err)
	}
	sl := quietLoop(t, weir.WithBackend(server))
	server.Drive(sl)
	s := newTestServer(t, sl, netip.AddrPortFrom(w.Host("server").Addrs()[0], 53).String())
	s.add("server.test 60 A " + s.addr.Addr().String())
	r := New(WithConfig(Config{Servers: []netip.AddrPort{s.addr}, Search: []string{"test"}, Ndots: 1}), WithHosts(nil), WithRandom(chacha(1)))
	l := quietLoop(t, weir.WithBackend(be), weir.WithResolver(r))
	be.Drive(l)
	p := &connected{}
	l.Connect("tcp", "server:53", p)
	if err := w.Run(func() bool { return p.made || p.failed != nil }); err != nil {
		t.Fatal(err)
	}
	if !p.made {
		t.Fatal(p.failed)
	}
	p = &connected{}
	l.Connect("tcp", "nobody:53", p)
	if err := w.Run(func() bool { return p.made || p.failed != nil }); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(p.failed, ErrNotFound) || p.failed.Stage != weir.StageName {
		t.Errorf("%v", p.failed)
	}
	p = &connected{}
	l.Connect("tcp", "server:53", p).Stop()
	if err := w.Run(func() bool { return p.failed != nil }); err != nil {
		t.Fatal(err)
	}
	if c := r.client(l); !errors.Is(p.failed, weir.ErrStopped) || len(c.open)+c.waiting+len(c.askers) != 0 || len(c.questions) != 0 {
		t.Errorf("%v; %d exchanges, %d questions", p.failed, len(c.open), len(c.questions))
	}
	r.Forget(l)
}

type connected struct {
	weir.NopProtocol
	made   bool
	failed *weir.ConnectError
}

func (c *connected) ConnectionMade(weir.Transport)        { c.made = true }
func (c *connected) ConnectFailed(err *weir.ConnectError) { c.failed = err }
