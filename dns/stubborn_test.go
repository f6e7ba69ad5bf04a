package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// edns reports whether a query has an OPT record.
func edns(q dnsmessage.Message) bool {
	return slices.ContainsFunc(q.Additionals, func(r dnsmessage.Resource) bool { return r.Header.Type == dnsmessage.TypeOPT })
}

// another adds another server to a lab.
func (lb *lab) another() *testServer {
	lb.t.Helper()
	return newTestServer(lb.t, lb.s.l, netip.AddrPortFrom(lb.s.addr.Addr(), 0).String())
}

// TestFirstServer: what the first server does not know, another may: an error,
// an empty reply or one about something else leads to the next server; a reply
// that the name or its records do not exist is final (N1).
func TestFirstServer(t *testing.T) {
	empty := func(f func(m *dnsmessage.Message)) func(m *dnsmessage.Message, _ bool) {
		return func(m *dnsmessage.Message, _ bool) {
			m.Answers, m.Authorities = nil, nil
			f(m)
		}
	}
	for _, c := range []struct {
		name  string
		edit  func(m *dnsmessage.Message, _ bool)
		final bool
	}{
		{"neither recursion nor a zone", empty(func(m *dnsmessage.Message) { m.RecursionAvailable = false }), false},
		{"a referral", empty(func(m *dnsmessage.Message) {
			m.Authorities = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Class: dnsmessage.ClassINET},
				Body:   &dnsmessage.NSResource{NS: dnsmessage.MustNewName("a.root.")},
			}}
		}), false},
		{"SERVFAIL", empty(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure }), false},
		{"REFUSED", empty(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeRefused }), false},
		{"NOTIMP", empty(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeNotImplemented }), false},
		{"FORMERR", empty(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeFormatError }), false},
		{"an error without its question", empty(func(m *dnsmessage.Message) { m.RCode, m.Questions = dnsmessage.RCodeRefused, nil }), false},
		{"about another name", func(m *dnsmessage.Message, _ bool) { m.Answers[0].Header.Name = dnsmessage.MustNewName("b.test.") }, false},
		{"another type", func(m *dnsmessage.Message, _ bool) {
			m.Answers[0].Body = &dnsmessage.TXTResource{TXT: []string{"x"}}
		}, false},
		{"no data, with recursion", empty(func(*dnsmessage.Message) {}), true},
		{"no data, of the zone", empty(func(m *dnsmessage.Message) { m.RecursionAvailable, m.Authoritative = false, true }), true},
		{"no such name", empty(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeNameError }), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			onLabs(t, func(t *testing.T, lb *lab) {
				lb.s.add("a.test 60 A 192.0.2.1")
				second := lb.another()
				second.add("a.test 60 A 192.0.2.2")
				lb.s.edit = c.edit
				r := lb.resolver(WithServers(lb.s.addr, second.addr))
				f := lb.lookup(r, "a.test", A)
				switch {
				case c.final && (!errors.Is(f.err, ErrNotFound) || len(second.queries) > 0):
					t.Errorf("%v, %v; the second was asked %v", f.a, f.err, second.queries)
				case !c.final && (f.err != nil || f.a.Server != second.addr):
					t.Errorf("%v, %v", f.a, f.err)
				}
				lb.clean(r)
			})
		})
	}
}

// TestWithoutEDNS: a server that answers queries with EDNS by an error, by
// something unreadable or not at all is asked without it, and from then on at
// once (N1; RFC 6891, 7).
func TestWithoutEDNS(t *testing.T) {
	code := func(code dnsmessage.RCode, question bool) func(m *dnsmessage.Message) {
		return func(m *dnsmessage.Message) {
			m.RCode, m.Answers, m.Authorities = code, nil, nil
			if !question {
				m.Questions = nil
			}
		}
	}
	for _, c := range []struct {
		name string
		edit func(m *dnsmessage.Message) // of the reply; nil: none
	}{
		{"FORMERR", code(dnsmessage.RCodeFormatError, true)},
		{"FORMERR, header alone", code(dnsmessage.RCodeFormatError, false)},
		{"NOTIMP", code(dnsmessage.RCodeNotImplemented, true)},
		{"NOTIMP, header alone", code(dnsmessage.RCodeNotImplemented, false)},
		{"SERVFAIL", code(dnsmessage.RCodeServerFailure, true)},
		{"REFUSED", code(dnsmessage.RCodeRefused, true)},
		{"nothing, and no recursion", func(m *dnsmessage.Message) {
			m.Answers, m.Authorities, m.RecursionAvailable = nil, nil, false
		}},
		{"BADVERS", func(m *dnsmessage.Message) {
			var h dnsmessage.ResourceHeader
			if err := h.SetEDNS0(512, badVersion, false); err != nil {
				t.Error(err)
			}
			m.Answers, m.Authorities = nil, nil
			m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
		}},
		{"silent", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			onLabs(t, func(t *testing.T, lb *lab) {
				lb.s.add("a.test 60 A 192.0.2.1", "b.test 60 A 192.0.2.2")
				lb.s.udp = func(e *weir.PacketEndpoint, q dnsmessage.Message, reply []byte, from weir.PacketAddr) bool {
					if !edns(q) || c.edit == nil {
						return edns(q)
					}
					var m dnsmessage.Message
					if err := m.Unpack(reply); err != nil {
						t.Error(err)
					}
					c.edit(&m)
					b, err := m.Pack()
					if err != nil {
						t.Error(err)
					}
					_ = e.SendTo(b, from)
					return true
				}
				if c.edit == nil {
					lb.silence(time.Second)
				}
				r := lb.resolver()
				for i, name := range []string{"a.test", "b.test"} {
					before := len(lb.s.queries)
					if f := lb.lookup(r, name, A); f.err != nil || len(f.a.Records) != 1 {
						t.Errorf("%v, %v", f.a, f.err)
					}
					if asked := len(lb.s.queries) - before; asked != 2-i {
						t.Errorf("%s was asked for %d times: %v", name, asked, lb.s.queries[before:])
					}
				}
				lb.clean(r)
			})
		})
	}
}

// TestBadVersion: an error whose code fits only in EDNS does not mean that
// there are no records, and is not kept (RFC 6891, 6.1.3).
func TestBadVersion(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		lb.s.add("a.test 60 A 192.0.2.1")
		lb.s.edit = func(m *dnsmessage.Message, _ bool) {
			var h dnsmessage.ResourceHeader
			if err := h.SetEDNS0(512, badVersion, false); err != nil {
				t.Error(err)
			}
			m.Answers = nil
			m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
		}
		r := lb.resolver()
		if f := lb.lookup(r, "a.test", A); !errors.Is(f.err, ErrServer) || !strings.Contains(f.err.Error(), "BADVERS") {
			t.Errorf("%v, %v", f.a, f.err)
		}
		lb.s.edit = nil
		if f := lb.lookup(r, "a.test", A); f.err != nil {
			t.Errorf("it was kept: %v", f.err)
		}
	})
}

// TestCaseChanged: a server that changes the case of names and has no TCP is
// believed when it is asked in lower case, with another id and port, and from
// then on at once (N1).
func TestCaseChanged(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(string) string
		tcp    bool
	}{{"lower", strings.ToLower, false}, {"upper", strings.ToUpper, false}, {"upper, with TCP", strings.ToUpper, true}} {
		t.Run(c.name, func(t *testing.T) {
			onLabs(t, func(t *testing.T, lb *lab) {
				lb.s.add("long-name.test 60 A 192.0.2.1", "other-name.test 60 A 192.0.2.2")
				lb.s.edit = func(m *dnsmessage.Message, _ bool) {
					m.Questions[0].Name = dnsmessage.MustNewName(c.change(m.Questions[0].Name.String()))
				}
				if !c.tcp {
					_ = lb.s.ln.Close()
				}
				r := lb.resolver()
				for i, name := range []string{"long-name.test", "other-name.test"} {
					before := len(lb.s.queries)
					if f := lb.lookup(r, name, A); f.err != nil {
						t.Errorf("%v, %v", f.a, f.err)
					}
					if asked := lb.s.queries[before:]; len(asked) > 2-i && !c.tcp {
						t.Errorf("%s was asked for with %v", name, asked)
					} else if c.tcp && !strings.HasSuffix(asked[len(asked)-1], "tcp") {
						t.Errorf("%s was believed over UDP: %v", name, asked)
					}
				}
				if lb.s.froms[0].Port() == lb.s.froms[1].Port() && !c.tcp {
					t.Error("asked again from the same port")
				}
				lb.clean(r)
			})
		})
	}
}

// TestLookupLocal: Lookup, too, does not ask servers for what is known without
// them (N2).
func TestLookupLocal(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		hosts, err := ParseHosts(strings.NewReader("192.0.2.7 box box.test\n2001:db8::7\tbox\n192.0.2.8 four\n"))
		if err != nil {
			t.Fatal(err)
		}
		lb.s.add("box 60 MX mail.test")
		r := lb.resolver(WithHosts(hosts))
		for _, c := range []struct {
			name  string
			t     Type
			want  string // "": there is none
			asked int
		}{
			{"localhost", A, "127.0.0.1", 0},
			{"LOCALHOST.", AAAA, "::1", 0},
			{"a.localhost", A, "127.0.0.1", 0},
			{"localhost", MX, "", 0},
			{"192.0.2.1", A, "192.0.2.1", 0},
			{"192.0.2.1", AAAA, "", 0},
			{"192.0.2.1", TXT, "", 0},
			{"2001:db8::1", AAAA, "2001:db8::1", 0},
			{"2001:db8::1", A, "", 0},
			{"Box", A, "192.0.2.7", 0},
			{"box.test", A, "192.0.2.7", 0},
			{"box.", AAAA, "2001:db8::7", 0},
			{"four", AAAA, "", 0},
			{"box", MX, "10 mail.test.", 1},
			{"7.2.0.192.in-addr.arpa", PTR, "box.", 0},
			{ReverseName(netip.MustParseAddr("2001:db8::7")), PTR, "box.", 0},
			{"1.0.0.127.in-addr.arpa", PTR, "localhost.", 0},
			{"9.2.0.192.in-addr.arpa", PTR, "", 1},
			{"a.b.c.d.in-addr.arpa", PTR, "", 1},
		} {
			before := len(lb.s.queries)
			f := lb.lookup(r, c.name, c.t)
			got := ""
			if len(f.a.Records) > 0 {
				got = f.a.Records[0].Value()
			}
			if got != c.want || (c.want == "") != errors.Is(f.err, ErrNotFound) || len(lb.s.queries)-before != c.asked {
				t.Errorf("%s %v: %q, %v, asked %v", c.name, c.t, got, f.err, lb.s.queries[before:])
			}
		}
		lb.clean(r)
	})
}

// TestSilentFamily: if one family's addresses do not come, be it for one name
// or for all, lookups do not wait for them again and again until they do come
// (N4).
func TestSilentFamily(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	for i := range 20 {
		lb.s.add(fmt.Sprintf("n%d.test 5 A 192.0.2.1", i), fmt.Sprintf("n%d.test 5 AAAA 2001:db8::1", i))
	}
	silent := func(name string) bool { return true }
	lb.s.udp = func(_ *weir.PacketEndpoint, q dnsmessage.Message, _ []byte, _ weir.PacketAddr) bool {
		return Type(q.Questions[0].Type) == AAAA && silent(lower(q.Questions[0].Name.String()))
	}
	r := lb.resolver(WithTimeout(time.Second, 1))
	waits := func(name string) bool {
		t.Helper()
		start := lb.l.Now()
		f := lb.host(r, "ip", name)
		if f.err != nil || len(f.addrs) == 0 {
			t.Errorf("%s: %v, %v", name, f.addrs, f.err)
		}
		return lb.l.Now().Sub(start) >= familyWait
	}
	// For one name whose other family is silent, they wait once.
	silent = func(name string) bool { return name == "n0.test." }
	if !waits("n0.test") {
		t.Error("not waited for at all")
	}
	for range 3 {
		if waits("n0.test") {
			t.Error("waited for again, while the question is under way")
		}
	}
	lb.pass(10 * time.Second)
	if waits("n0.test") {
		t.Error("waited for again, after it came to nothing")
	}
	if f := lb.host(r, "ip", "n1.test"); len(f.addrs) != 2 {
		t.Errorf("another name: %v", f.addrs)
	}
	// For all names, a few times.
	silent = func(string) bool { return true }
	n := 0
	for i := 2; i < 12; i++ {
		if waits(fmt.Sprintf("n%d.test", i)) {
			n++
		}
	}
	if n != lagRow {
		t.Errorf("%d of 10 names waited, want %d", n, lagRow)
	}
	// The family answers again, and lookups wait for it.
	silent = func(string) bool { return false }
	lb.pass(2 * time.Second)
	lb.host(r, "ip", "n12.test")
	lb.pass(time.Second)
	if f := lb.host(r, "ip", "n13.test"); len(f.addrs) != 2 {
		t.Errorf("afterwards: %v", f.addrs)
	}
	lb.pass(10 * time.Second)
	lb.clean(r)
}

// TestAskers: many askers share the resolver: one that asks for thousands of
// names in a silent zone keeps no other waiting, is bounded, and leaves nothing
// queued (S5).
func TestAskers(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	lb.s.add("a.test 60 A 192.0.2.1", "b.test 60 A 192.0.2.1", "c.test 60 A 192.0.2.1")
	lb.s.udp = func(_ *weir.PacketEndpoint, q dnsmessage.Message, _ []byte, _ weir.PacketAddr) bool {
		return strings.HasSuffix(lower(q.Questions[0].Name.String()), ".silent.")
	}
	r := lb.resolver(WithLimits(16, 10_000), WithAskerLimit(100), WithTimeout(5*time.Second, 2))
	ask := func(from, name string) (*found, func()) {
		f := &found{}
		stop := r.For(netip.MustParseAddr(from)).LookupNetIP(lb.l, "ip4", name, func(a []netip.Addr, err error) { f.addrs, f.err = a, err; f.n++ })
		return f, stop
	}
	var stops []func()
	busy := 0
	var all []*found
	for i := range 3000 {
		f, stop := ask([]string{"192.0.2.66", "2001:db8:0:1::1", "2001:db8:0:1::2"}[i%3], fmt.Sprintf("n%d.silent", i))
		stops, all = append(stops, stop), append(all, f)
	}
	lb.pass(time.Millisecond)
	for _, f := range all {
		if errors.Is(f.err, ErrBusy) {
			busy++
		}
	}
	c := r.client(lb.l)
	if busy != 2800 || len(c.questions) != 200 || len(c.open) != 16 {
		t.Errorf("%d were refused, %d questions are under way, %d sockets open", busy, len(c.questions), len(c.open))
	}
	for _, from := range []string{"192.0.2.1", "192.0.2.2", "127.0.0.1"} {
		start := lb.l.Now()
		f, _ := ask(from, map[string]string{"192.0.2.1": "a.test", "192.0.2.2": "b.test", "127.0.0.1": "c.test"}[from])
		lb.until("an innocent's answer", func() bool { return f.n > 0 })
		if took := lb.l.Now().Sub(start); f.err != nil || took > time.Second {
			t.Errorf("%s: %v, %v after %v", from, f.addrs, f.err, took)
		}
	}
	// The program itself does not wait, either.
	start := lb.l.Now()
	lb.s.add("d.test 60 A 192.0.2.1")
	if f := lb.host(r, "ip4", "d.test"); f.err != nil || lb.l.Now().Sub(start) > time.Second {
		t.Errorf("%v, %v", f.addrs, f.err)
	}
	// An asker that waits for the same name does not wait in the other's queue.
	name := ""
	for _, a := range c.askers {
		if a.line.Len() > 0 {
			name = a.line.Back().Value.(*exchange).q.key.name
		}
	}
	lb.s.add(name + " 60 A 192.0.2.9")
	lb.s.udp = func(_ *weir.PacketEndpoint, q dnsmessage.Message, _ []byte, _ weir.PacketAddr) bool {
		n := lower(q.Questions[0].Name.String())
		return strings.HasSuffix(n, ".silent.") && n != name
	}
	f, _ := ask("192.0.2.3", name)
	start = lb.l.Now()
	lb.until("the name that others ask for as well", func() bool { return f.n > 0 })
	if took := lb.l.Now().Sub(start); f.err != nil || took > time.Second {
		t.Errorf("%v, %v after %v", f.addrs, f.err, took)
	}
	// A question from the same address waits for one turn, not for all the
	// others.
	lb.s.add("e.test 60 A 192.0.2.1")
	lb.pass(turnTime)
	start = lb.l.Now()
	f, _ = ask("192.0.2.66", "e.test")
	lb.until("the answer of one from the same address", func() bool { return f.n > 0 })
	if took := lb.l.Now().Sub(start); f.err != nil || took > time.Second {
		t.Errorf("%v, %v after %v", f.addrs, f.err, took)
	}
	for _, stop := range stops {
		stop()
	}
	lb.clean(r)
}

// TestTurns: when one asker asks for many names of a silent zone at once, its
// other names do not wait for as long as those take.
func TestTurns(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	lb.s.add("a.test 60 A 192.0.2.1")
	lb.s.udp = func(_ *weir.PacketEndpoint, q dnsmessage.Message, _ []byte, _ weir.PacketAddr) bool {
		return strings.HasSuffix(lower(q.Questions[0].Name.String()), ".silent.")
	}
	r := lb.resolver(WithLimits(16, 10_000), WithTimeout(5*time.Second, 2))
	failed := 0
	for i := range 100 {
		r.LookupNetIP(lb.l, "ip4", fmt.Sprintf("n%d.silent", i), func(_ []netip.Addr, err error) {
			if failed++; !errors.Is(err, ErrTimeout) {
				t.Error(err)
			}
		})
	}
	start := lb.l.Now()
	if f := lb.host(r, "ip4", "a.test"); f.err != nil || lb.l.Now().Sub(start) > 3*time.Second {
		t.Errorf("%v, %v after %v", f.addrs, f.err, lb.l.Now().Sub(start))
	}
	lb.until("all of them to fail", func() bool { return failed == 100 })
	if took := lb.l.Now().Sub(start); took > time.Minute {
		t.Errorf("that took %v", took)
	}
	lb.clean(r)
}

// TestSilence: when no server answers, this is reported once, and callers that
// ask then do not wait for as long as the first; what was known is served at
// once (S13).
func TestSilence(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	lb.s.add("a.test 10 A 192.0.2.1", "b.test 10 A 192.0.2.2")
	second := lb.another()
	var told []string
	r := lb.resolver(WithServers(lb.s.addr, second.addr), WithTimeout(5*time.Second, 2), WithStale(time.Hour),
		WithSilence(func(_ *weir.Loop, silent []netip.AddrPort) { told = append(told, fmt.Sprint(len(silent))) }))
	mute := func(*weir.PacketEndpoint, dnsmessage.Message, []byte, weir.PacketAddr) bool { return true }
	lb.lookup(r, "a.test", A)
	lb.pass(time.Minute)
	lb.s.udp, second.udp = mute, mute
	took := func(name string) (*found, time.Duration) {
		start := lb.l.Now()
		f := lb.lookup(r, name, A)
		return f, lb.l.Now().Sub(start)
	}
	f, d := took("a.test")
	if f.err != nil || !f.a.Stale || d < staleAfter || d > 3*time.Second {
		t.Errorf("%+v, %v, after %v", f.a, f.err, d)
	}
	lb.pass(30 * time.Second)
	for i := range 5 {
		f, d = took(fmt.Sprintf("new%d.test", i))
		if !errors.Is(f.err, ErrTimeout) || d > 3*time.Second {
			t.Errorf("%v after %v", f.err, d)
		}
		if f, d = took("a.test"); f.err != nil || !f.a.Stale || d > 100*time.Millisecond {
			t.Errorf("%+v, %v, after %v", f.a, f.err, d)
		}
	}
	lb.s.udp, second.udp = nil, nil
	if f, _ = took("b.test"); f.err != nil {
		t.Error(f.err)
	}
	if f, _ = took("b.test"); f.err != nil || f.a.Stale {
		t.Errorf("%+v, %v", f.a, f.err)
	}
	if fmt.Sprint(told) != "[2 0]" {
		t.Errorf("told %v", told)
	}
	lb.pass(time.Minute)
	lb.clean(r)
}
