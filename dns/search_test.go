package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

func TestParseConfig(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "[127.0.0.1:53] [] 1 5s 2 false"},
		{
			"nameserver 192.0.2.1\nnameserver fe80::1%eth0 # x\nnameserver ::ffff:192.0.2.3\nnameserver 192.0.2.4\n",
			"[192.0.2.1:53 [fe80::1%eth0]:53 192.0.2.3:53] [] 1 5s 2 false",
		},
		{
			"; all\nsearch a.test b.test. -$ .\noptions ndots:3 timeout:2 attempts:4 rotate what:ever ndots:x\n",
			"[127.0.0.1:53] [a.test. b.test.] 3 2s 4 true",
		},
		{"domain a.test\noptions ndots:99 timeout:0 attempts:100", "[127.0.0.1:53] [a.test.] 15 1s 5 false"},
		{"nameserver\nnameserver x\noptions ndots:0", "[127.0.0.1:53] [] 0 5s 2 false"},
	} {
		conf, err := ParseConfig(strings.NewReader(c.text))
		got := fmt.Sprintf("%v %v %d %v %d %t", conf.Servers, conf.Search, conf.Ndots, conf.Timeout, conf.Attempts, conf.Rotate)
		if err != nil || got != c.want {
			t.Errorf("%q: %s, %v; want %s", c.text, got, err, c.want)
		}
	}
}

func TestCandidates(t *testing.T) {
	c := Config{Search: []string{"a.test.", "b.test."}, Ndots: 2}
	for name, want := range map[string]string{
		"x":     "[x.a.test. x.b.test. x.]",
		"x.y":   "[x.y.a.test. x.y.b.test. x.y.]",
		"x.y.z": "[x.y.z. x.y.z.a.test. x.y.z.b.test.]",
		"x.":    "[x.]",
	} {
		if got := fmt.Sprint(c.candidates(name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := strings.Repeat(label+".", 3) + strings.Repeat("a", 61)
	for name, ok := range map[string]bool{
		"a.test": true, "a.test.": true, "_x._tcp.a-b.test": true, "*.test": true, "1/2.test": true, label + ".test": true, long: true,
		"": false, ".": false, "..": false, "a..b": false, ".a": false, "a b": false, "a\x00b": false, "ü.test": false,
		label + "a.test": false, long + "aa": false, "a\\b": false, "a;b": false, "a*.test": false,
	} {
		if err := checkName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestSearch: the search list is tried in order, and a server's trouble with
// one name is not taken for its absence.
func TestSearch(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		lb.s.add("x.b.test 60 A 192.0.2.1")
		conf := Config{Servers: []netip.AddrPort{lb.s.addr}, Search: []string{"a.test", "b.test"}, Ndots: 1, Timeout: lb.timeout}
		r := lb.resolver(WithConfig(conf))
		f := lb.lookup(r, "x", A)
		if f.err != nil || f.a.Name != "x.b.test." || len(f.a.Records) != 1 {
			t.Errorf("%+v, %v", f.a, f.err)
		}
		if f := lb.host(r, "ip4", "x"); f.err != nil || len(f.addrs) != 1 {
			t.Errorf("%v, %v", f.addrs, f.err)
		}
		lb.s.queries = nil
		if f := lb.lookup(r, "y", A); !errors.Is(f.err, ErrNotFound) {
			t.Error(f.err)
		}
		if got := fmt.Sprint(lb.s.queries); got != "[y.a.test. A udp y.b.test. A udp y. A udp]" {
			t.Errorf("asked for %s", got)
		}
		lb.s.edit = func(m *dnsmessage.Message, _ bool) {
			if lower(m.Questions[0].Name.String()) == "z.b.test." {
				m.RCode, m.Answers, m.Authorities = dnsmessage.RCodeServerFailure, nil, nil
			}
		}
		if f := lb.lookup(r, "z", A); !errors.Is(f.err, ErrServer) {
			t.Error(f.err)
		}
		lb.clean(r)
	})
}

func TestFailover(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		lb.silence(time.Second)
		lb.s.add("a.test 60 A 192.0.2.1", "b.test 60 A 192.0.2.2")
		// A server that is up but says nothing.
		mute, err := lb.s.l.ListenPacket("udp4", netip.AddrPortFrom(lb.s.addr.Addr(), 0).String(), weir.PacketFunc(func(*weir.PacketEndpoint, []byte, weir.PacketAddr) {}).Protocol())
		if err != nil {
			t.Fatal(err)
		}
		r := lb.resolver(WithServers(mute.Local().IP, lb.s.addr))
		start := lb.l.Now()
		if f := lb.lookup(r, "a.test", A); f.err != nil || f.a.Server != lb.s.addr {
			t.Errorf("%v, %v", f.a, f.err)
		}
		if took := lb.l.Now().Sub(start); took < lb.timeout {
			t.Errorf("the first server had %v", took)
		}
		start = lb.l.Now()
		if f := lb.lookup(r, "b.test", A); f.err != nil {
			t.Error(f.err)
		}
		if took := lb.l.Now().Sub(start); lb.world != nil && took > 200*time.Millisecond {
			t.Errorf("a server that did not answer was asked first again: %v", took)
		}
		lb.clean(r)
	})
}

func TestRotate(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	var servers []netip.AddrPort
	asked := map[netip.AddrPort]int{}
	for i := range 3 {
		s := newTestServer(t, lb.s.l, netip.AddrPortFrom(lb.s.addr.Addr(), uint16(5300+i)).String())
		s.udp = func(*weir.PacketEndpoint, dnsmessage.Message, []byte, weir.PacketAddr) bool {
			asked[s.addr]++
			return false
		}
		servers = append(servers, s.addr)
	}
	r := lb.resolver(WithConfig(Config{Servers: servers, Rotate: true, Ndots: 1}))
	for i := range 9 {
		lb.lookup(r, fmt.Sprintf("n%d.test", i), A)
	}
	for _, s := range servers {
		if asked[s] != 3 {
			t.Errorf("%v was asked %d times of 9", s, asked[s])
		}
	}
}

// TestFamilies: the addresses of one family do not wait long for those of the
// other.
func TestFamilies(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		lb.s.add("a.test 60 A 192.0.2.1", "a.test 60 AAAA 2001:db8::1")
		lb.s.udp = func(_ *weir.PacketEndpoint, q dnsmessage.Message, _ []byte, _ weir.PacketAddr) bool {
			return Type(q.Questions[0].Type) == AAAA
		}
		r := lb.resolver(WithTimeout(3*time.Second, 1))
		start := lb.l.Now()
		f := lb.host(r, "ip", "a.test")
		if f.err != nil || len(f.addrs) != 1 || !f.addrs[0].Is4() {
			t.Errorf("%v, %v", f.addrs, f.err)
		}
		if took := lb.l.Now().Sub(start); lb.world != nil && took > time.Second {
			t.Errorf("took %v", took)
		}
		lb.s.udp = nil
		r = lb.resolver()
		if f := lb.host(r, "ip", "a.test"); len(f.addrs) != 2 || !f.addrs[0].Is6() {
			t.Errorf("%v, %v", f.addrs, f.err)
		}
		if f := lb.host(r, "ip6", "a.test"); len(f.addrs) != 1 || !f.addrs[0].Is6() {
			t.Errorf("%v, %v", f.addrs, f.err)
		}
	})
}

// TestNotAsked: no server is asked for what is known without one.
func TestNotAsked(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		hosts, err := ParseHosts(strings.NewReader("192.0.2.7 box box.test # x\n2001:db8::7\tbox\nnonsense\n192.0.2.8 four\n"))
		if err != nil {
			t.Fatal(err)
		}
		r := lb.resolver(WithHosts(hosts))
		for _, c := range []struct{ network, name, want string }{
			{"ip", "192.0.2.1", "[192.0.2.1]"},
			{"ip", "fe80::1%eth0", "[fe80::1%eth0]"},
			{"ip", "BOX", "[192.0.2.7 2001:db8::7]"},
			{"ip4", "box.", "[192.0.2.7]"},
			{"ip6", "box.test", ErrNotFound.Error()},
			{"ip6", "192.0.2.1", ErrNotFound.Error()},
			{"ip", "localhost", "[::1 127.0.0.1]"},
			{"ip4", "x.localhost.", "[127.0.0.1]"},
			{"ip", "x.invalid", ErrNotFound.Error()},
			{"ip", "abc.onion", ErrNotFound.Error()},
			{"ip", "a b", ErrBadName.Error()},
			{"ip", "", ErrBadName.Error()},
		} {
			f := lb.host(r, c.network, c.name)
			got := fmt.Sprint(f.addrs)
			if f.err != nil {
				got = errors.Unwrap(f.err).Error()
			}
			if got != c.want {
				t.Errorf("%s %q: %s, want %s", c.network, c.name, got, c.want)
			}
		}
		if f := lb.lookup(r, "x.onion", TXT); !errors.Is(f.err, ErrNotFound) {
			t.Error(f.err)
		}
		var names []string
		r.LookupAddr(lb.l, netip.MustParseAddr("192.0.2.7"), func(n []string, _ error) { names = n })
		lb.until("names", func() bool { return names != nil })
		if fmt.Sprint(names) != "[box. box.test.]" || len(lb.s.queries) != 0 {
			t.Errorf("%v, asked %v", names, lb.s.queries)
		}
	})
}

func TestReverseName(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.10":     "10.2.0.192.in-addr.arpa.",
		"::ffff:1.2.3.4": "4.3.2.1.in-addr.arpa.",
		"2001:db8::1":    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
	} {
		if got := ReverseName(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %s", a, got)
		}
	}
}

// TestReload: files are read again after they change.
func TestReload(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	other := newTestServer(t, lb.s.l, netip.AddrPortFrom(lb.s.addr.Addr(), 5353).String())
	_ = other
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	lb.s.add("a.test 60 A 192.0.2.1", "a.example 60 A 192.0.2.2")
	server := "nameserver " + lb.s.addr.Addr().String() + "\n"
	r := New(WithConfigFile(write("resolv.conf", server+"search test\n")), WithHostsFile(write("hosts", "192.0.2.5 old\n")), WithRandom(chacha(1)))
	if f := lb.host(r, "ip4", "old"); fmt.Sprint(f.addrs) != "[192.0.2.5]" {
		t.Errorf("%v, %v", f.addrs, f.err)
	}
	if f := lb.lookup(r, "a", A); f.a.Name != "a.test." {
		t.Errorf("%+v, %v", f.a, f.err)
	}
	write("resolv.conf", server+"search example other\n")
	write("hosts", "192.0.2.66 new-one\n")
	if f := lb.lookup(r, "a", A); f.a.Name != "a.test." {
		t.Errorf("the files are looked at too often: %+v, %v", f.a, f.err)
	}
	lb.pass(6 * time.Second)
	if f := lb.lookup(r, "a", A); f.a.Name != "a.example." {
		t.Errorf("%+v, %v", f.a, f.err)
	}
	if f := lb.host(r, "ip4", "new-one"); fmt.Sprint(f.addrs) != "[192.0.2.66]" {
		t.Errorf("%v, %v", f.addrs, f.err)
	}
	if f := lb.host(r, "ip4", "old"); f.err == nil {
		t.Errorf("%v", f.addrs)
	}
}

// TestCache: answers are kept as long as their TTLs say, TTLs count down, and
// the least recently used answer is dropped first.
func TestCache(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	lb.s.add("a.test 10 A 192.0.2.1", "zero.test 0 A 192.0.2.2", "b.test 100 A 192.0.2.3", "c.test 100 A 192.0.2.4")
	r := lb.resolver(WithCache(2))
	ask := func(name string, asked int) found {
		t.Helper()
		before := len(lb.s.queries)
		f := lb.lookup(r, name, A)
		if f.err != nil || len(lb.s.queries)-before != asked {
			t.Errorf("%s: %v, asked %d times, want %d", name, f.err, len(lb.s.queries)-before, asked)
		}
		return *f
	}
	ask("a.test", 1)
	lb.pass(4 * time.Second)
	if f := ask("a.test", 0); !f.a.Cached || f.a.Records[0].TTL > 6*time.Second || f.a.Records[0].TTL < 5*time.Second {
		t.Errorf("%+v", f.a)
	}
	lb.pass(7 * time.Second)
	ask("a.test", 1)
	ask("zero.test", 1)
	ask("zero.test", 1)
	ask("b.test", 1)
	ask("a.test", 0)
	ask("c.test", 1) // b goes
	ask("a.test", 0)
	ask("b.test", 1)
}

// TestStale: with WithStale an old answer is served after 1.8 s or when all
// servers have failed; without WithStale it is not (RFC 8767).
func TestStale(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	lb.s.add("a.test 10 A 192.0.2.1")
	r, strict := lb.resolver(WithStale(time.Hour), WithTimeout(5*time.Second, 1)), lb.resolver(WithTimeout(5*time.Second, 1))
	_, _ = lb.lookup(r, "a.test", A), lb.lookup(strict, "a.test", A)
	lb.pass(time.Minute)
	lb.s.udp = func(*weir.PacketEndpoint, dnsmessage.Message, []byte, weir.PacketAddr) bool { return true }
	start := lb.l.Now()
	f := lb.lookup(r, "a.test", A)
	if took := lb.l.Now().Sub(start); f.err != nil || !f.a.Stale || f.a.TTL != 30*time.Second || took < staleAfter || took > 3*time.Second {
		t.Errorf("%+v, %v, after %v", f.a, f.err, took)
	}
	if f := lb.lookup(r, "a.test", A); f.err != nil || !f.a.Stale { // while the question is still under way
		t.Errorf("%+v, %v", f.a, f.err)
	}
	if f := lb.lookup(strict, "a.test", A); !errors.Is(f.err, ErrTimeout) {
		t.Errorf("%+v, %v", f.a, f.err)
	}
	lb.s.udp = nil
	lb.pass(time.Minute)
	if f := lb.lookup(r, "a.test", A); f.err != nil || f.a.Stale {
		t.Errorf("%+v, %v", f.a, f.err)
	}
	lb.clean(r)
}
