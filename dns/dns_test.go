package dns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
)

func texts(all []Record) string {
	var s []string
	for _, r := range all {
		s = append(s, r.String())
	}
	return strings.Join(s, "; ")
}

func TestRecords(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		lb.s.add(
			"a.test 60 A 192.0.2.1", "a.test 60 A 192.0.2.2", "a.test 60 AAAA 2001:db8::1",
			"a.test 60 MX mail.test", "_x._tcp.a.test 60 SRV host.test", "a.test 60 TXT one two",
			"1.2.0.192.in-addr.arpa 60 PTR a.test", "a.test 60 NS ns.test", "a.test 60 HTTPS .",
			"alias.test 30 CNAME other.test", "other.test 90 CNAME a.test",
		)
		r := lb.resolver()
		for _, c := range []struct {
			name string
			t    Type
			want string
		}{
			{"a.test", A, "a.test. 60 IN A 192.0.2.1; a.test. 60 IN A 192.0.2.2"},
			{"a.test", AAAA, "a.test. 60 IN AAAA 2001:db8::1"},
			{"a.test", MX, "a.test. 60 IN MX 10 mail.test."},
			{"_x._tcp.a.test", SRV, "_x._tcp.a.test. 60 IN SRV 1 2 3 host.test."},
			{"a.test", TXT, `a.test. 60 IN TXT "one" "two"`},
			{"1.2.0.192.in-addr.arpa", PTR, "1.2.0.192.in-addr.arpa. 60 IN PTR a.test."},
			{"a.test", NS, "a.test. 60 IN NS ns.test."},
			{"a.test", HTTPS, `a.test. 60 IN HTTPS 1 . alpn="h2"`},
			{"alias.test", A, "a.test. 60 IN A 192.0.2.1; a.test. 60 IN A 192.0.2.2"},
		} {
			f := lb.lookup(r, c.name, c.t)
			if got := texts(f.a.Records); f.err != nil || got != c.want || f.a.Server != lb.s.addr || f.a.Cached {
				t.Errorf("%s %v: %s, %v, want %s", c.name, c.t, got, f.err, c.want)
			}
		}
		f := lb.lookup(r, "alias.test", A)
		if len(f.a.Aliases) != 2 || f.a.TTL > 30*time.Second || !f.a.Cached {
			t.Errorf("alias: %+v", f.a)
		}
		if f := lb.host(r, "ip", "alias.test"); len(f.addrs) != 3 || f.err != nil {
			t.Errorf("addresses: %v, %v", f.addrs, f.err)
		}
		if f := lb.host(r, "ip4", "a.test"); len(f.addrs) != 2 || f.err != nil {
			t.Errorf("addresses of IPv4: %v, %v", f.addrs, f.err)
		}
		var names []string
		r.LookupAddr(lb.l, netip.MustParseAddr("192.0.2.1"), func(n []string, err error) {
			if names = n; err != nil {
				t.Error(err)
			}
		})
		lb.until("names", func() bool { return names != nil })
		if names[0] != "a.test." {
			t.Errorf("names %v", names)
		}
		lb.clean(r)
	})
}

// TestNegative: the kinds of negative answers are told apart, and kept as long
// as they say (behaviour 70, RFC 2308).
func TestNegative(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		lb.s.add("a.test 60 A 192.0.2.1", "dangling.test 60 CNAME nowhere.test")
		r := lb.resolver()
		for _, c := range []struct {
			name   string
			t      Type
			noName bool
		}{{"a.test", AAAA, false}, {"no.test", A, true}, {"dangling.test", A, true}} {
			for i := range 2 {
				before := len(lb.s.queries)
				f := lb.lookup(r, c.name, c.t)
				var e *Error
				var ne *net.DNSError
				if !errors.Is(f.err, ErrNotFound) || !errors.As(f.err, &e) || e.NoName != c.noName ||
					!errors.As(f.err, &ne) || !ne.IsNotFound || e.Name != c.name {
					t.Errorf("%s %v: %v", c.name, c.t, f.err)
				}
				if asked := len(lb.s.queries) - before; asked != 1-i {
					t.Errorf("%s %v asked %d times", c.name, c.t, asked)
				}
			}
		}
		lb.s.soa = 0 // nothing says how long: not kept
		before := len(lb.s.queries)
		for range 2 {
			lb.lookup(r, "no2.test", A)
		}
		if asked := len(lb.s.queries) - before; asked != 2 {
			t.Errorf("without an SOA asked %d times", asked)
		}
		lb.clean(r)
	})
}

// aliases puts a number of aliases before the address of a.test.
func aliases(lb *lab, n int) {
	delete(lb.s.zone, key{"a.test.", A})
	name := "a.test"
	for i := range n {
		next := fmt.Sprintf("a%d.test", i)
		lb.s.add(name + " 60 CNAME " + next)
		name = next
	}
	lb.s.add(name + " 60 A 192.0.2.1")
}

// TestMisbehaviour: whatever a server or a forger does, each lookup has one
// result, and nothing is left over (behaviour 70).
func TestMisbehaviour(t *testing.T) {
	refuse := func(code dnsmessage.RCode) func(*lab) {
		return func(lb *lab) {
			lb.s.edit = func(m *dnsmessage.Message, _ bool) { m.RCode, m.Answers, m.Authorities = code, nil, nil }
		}
	}
	mangle := func(f func(reply []byte)) func(*lab) {
		return func(lb *lab) {
			lb.s.udp = func(e *weir.PacketEndpoint, _ dnsmessage.Message, reply []byte, from weir.PacketAddr) bool {
				f(reply)
				_ = e.SendTo(reply, from)
				return true
			}
		}
	}
	for _, c := range []struct {
		name    string
		set     func(*lab)
		err     error // nil: the right answer comes all the same
		queries []string
	}{
		{"SERVFAIL", refuse(dnsmessage.RCodeServerFailure), ErrServer, []string{"udp", "udp", "udp"}},
		{"REFUSED", refuse(dnsmessage.RCodeRefused), ErrServer, []string{"udp", "udp", "udp"}},
		{"FORMERR", refuse(dnsmessage.RCodeFormatError), ErrServer, []string{"udp", "udp", "udp"}},
		{"truncated", func(lb *lab) {
			lb.s.edit = func(m *dnsmessage.Message, tcp bool) { m.Truncated = !tcp }
		}, nil, []string{"udp", "tcp"}},
		{"truncated over TCP too", func(lb *lab) {
			lb.s.edit = func(m *dnsmessage.Message, _ bool) { m.Truncated = true }
		}, ErrServer, []string{"udp", "tcp", "udp", "tcp", "udp", "tcp"}},
		{"too long for the endpoint", func(lb *lab) {
			for i := range 300 {
				lb.s.add(fmt.Sprintf("a.test 60 A 198.51.100.%d", i%256))
			}
		}, nil, []string{"udp", "tcp"}},
		{"wrong id", mangle(func(p []byte) { p[0] ^= 1 }), nil, []string{"udp", "tcp"}},
		{"no reply at all", mangle(func(p []byte) { p[2] &^= 0x80 }), nil, []string{"udp", "tcp"}},
		{"wrong question", mangle(func(p []byte) { p[13] = 'z' }), nil, []string{"udp", "tcp"}},
		{"question in another case", mangle(func(p []byte) {
			for i := 13; i < 18; i++ {
				p[i] = strings.ToUpper(string(p[i]))[0]
				if i%2 == 0 {
					p[i] = strings.ToLower(string(p[i]))[0]
				}
			}
		}), nil, nil},
		{"wrong type", mangle(func(p []byte) { p[21] = 28 }), nil, nil},
		{"empty datagram", func(lb *lab) {
			lb.s.udp = func(e *weir.PacketEndpoint, _ dnsmessage.Message, _ []byte, from weir.PacketAddr) bool {
				_ = e.SendTo(nil, from)
				return true
			}
		}, nil, []string{"udp", "tcp"}},
		{"cut in the middle", func(lb *lab) {
			lb.s.udp = func(e *weir.PacketEndpoint, _ dnsmessage.Message, reply []byte, from weir.PacketAddr) bool {
				_ = e.SendTo(reply[:len(reply)-5], from)
				return true
			}
		}, ErrServer, []string{"udp", "udp", "udp"}},
		{"doubled", func(lb *lab) {
			lb.s.udp = func(e *weir.PacketEndpoint, _ dnsmessage.Message, reply []byte, from weir.PacketAddr) bool {
				_ = e.SendTo(reply, from)
				return false
			}
		}, nil, []string{"udp"}},
		{"silent", func(lb *lab) {
			lb.silence(250 * time.Millisecond)
			lb.s.udp = func(*weir.PacketEndpoint, dnsmessage.Message, []byte, weir.PacketAddr) bool { return true }
		}, ErrTimeout, []string{"udp", "udp"}},
		{"silent once", func(lb *lab) {
			lb.silence(time.Second)
			n := 0
			lb.s.udp = func(*weir.PacketEndpoint, dnsmessage.Message, []byte, weir.PacketAddr) bool { n++; return n == 1 }
		}, nil, []string{"udp", "udp"}},
		{"late", func(lb *lab) {
			lb.silence(time.Second)
			n := 0
			lb.s.udp = func(e *weir.PacketEndpoint, _ dnsmessage.Message, reply []byte, from weir.PacketAddr) bool {
				if n++; n > 1 {
					return false
				}
				lb.s.l.After(lb.timeout+50*time.Millisecond, func() { _ = e.SendTo(reply, from) })
				return true
			}
		}, nil, []string{"udp", "udp"}},
		{"from another address", func(lb *lab) {
			lb.silence(250 * time.Millisecond)
			other, err := lb.s.l.ListenPacket("udp4", netip.AddrPortFrom(lb.s.addr.Addr(), 0).String(), weir.PacketFunc(func(*weir.PacketEndpoint, []byte, weir.PacketAddr) {}).Protocol())
			if err != nil {
				lb.t.Fatal(err)
			}
			lb.s.udp = func(_ *weir.PacketEndpoint, _ dnsmessage.Message, reply []byte, from weir.PacketAddr) bool {
				_ = other.SendTo(reply, from)
				return true
			}
		}, ErrTimeout, []string{"udp", "udp"}},
		{"no TCP behind the truncation", func(lb *lab) {
			lb.s.edit = func(m *dnsmessage.Message, tcp bool) { m.Truncated = !tcp }
			_ = lb.s.ln.Close()
		}, ErrServer, []string{"udp", "udp"}},
		{"TCP that ends early", func(lb *lab) {
			lb.s.edit = func(m *dnsmessage.Message, tcp bool) { m.Truncated = !tcp }
			lb.s.tcp = func(t weir.Transport, _ dnsmessage.Message, reply []byte) bool {
				_, _ = t.Write([]byte{0, byte(len(reply)), 1, 2, 3})
				_ = t.Close()
				return true
			}
		}, ErrServer, []string{"udp", "tcp", "udp", "tcp"}},
		{"no server there", func(lb *lab) {
			lb.silence(250 * time.Millisecond) // the portable backend is not told of this
			_, _ = lb.s.e.Close(), lb.s.ln.Close()
		}, ErrServer, nil},
		{"aliases in a circle", func(lb *lab) {
			delete(lb.s.zone, key{"a.test.", A})
			lb.s.add("a.test 60 CNAME b.test", "b.test 60 CNAME a.test")
		}, ErrAliases, []string{"udp"}},
		{"too many aliases", func(lb *lab) { aliases(lb, 33) }, ErrAliases, []string{"udp"}},
		{"many aliases", func(lb *lab) { aliases(lb, 32) }, nil, []string{"udp"}},
		{"a circle, one by one", func(lb *lab) {
			delete(lb.s.zone, key{"a.test.", A})
			lb.s.add("a.test 60 CNAME b.test", "b.test 60 CNAME c.test", "c.test 60 CNAME b.test")
			lb.s.edit = func(m *dnsmessage.Message, _ bool) { m.Answers = m.Answers[:1] }
		}, ErrAliases, []string{"udp", "udp", "udp"}},
		{"many aliases, one by one", func(lb *lab) {
			aliases(lb, 32)
			lb.s.edit = func(m *dnsmessage.Message, _ bool) { m.Answers = m.Answers[:1] }
		}, nil, nil},
		{"an answer about another name", func(lb *lab) {
			lb.s.edit = func(m *dnsmessage.Message, _ bool) { m.Answers[0].Header.Name = dnsmessage.MustNewName("b.test.") }
		}, ErrServer, []string{"udp", "udp", "udp"}},
		{"an alias that is no name", func(lb *lab) {
			lb.s.edit = func(m *dnsmessage.Message, _ bool) {
				m.Answers[0].Body = &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("x y$(z).test.")}
			}
		}, ErrServer, []string{"udp", "udp", "udp"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onLabs(t, func(t *testing.T, lb *lab) {
				lb.s.add("a.test 60 A 192.0.2.1")
				c.set(lb)
				r := lb.resolver()
				start := lb.l.Now()
				f := lb.lookup(r, "a.test", A)
				switch {
				case c.err != nil && !errors.Is(f.err, c.err) && !(c.name == "no server there" && errors.Is(f.err, ErrTimeout)):
					t.Errorf("%v, %v; want %v", f.a, f.err, c.err)
				case c.err == nil && (f.err != nil || !slices.ContainsFunc(f.a.Records, func(r Record) bool { return r.Addr == netip.MustParseAddr("192.0.2.1") })):
					t.Errorf("%v, %v; want the right answer", f.a, f.err)
				}
				var over []string
				for _, q := range lb.s.queries {
					over = append(over, q[strings.LastIndexByte(q, ' ')+1:])
				}
				if c.queries != nil && !slices.Equal(over, c.queries) {
					t.Errorf("queries %v, want %v", lb.s.queries, c.queries)
				}
				if took := lb.l.Now().Sub(start); lb.world != nil && took > 5*time.Second {
					t.Errorf("took %v", took)
				}
				later := false
				lb.l.After(100*time.Millisecond, func() { later = true })
				lb.until("quiet", func() bool { return later })
				if f.n != 1 {
					t.Errorf("%d results", f.n)
				}
				lb.clean(r)
			})
		})
	}
}

func TestRefusalIsFast(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		if lb.l.Backend().Name == "portable" {
			t.Skip("package net does not report refusals")
		}
		_, _ = lb.s.e.Close(), lb.s.ln.Close()
		r := lb.resolver()
		start := lb.l.Now()
		f := lb.lookup(r, "a.test", A)
		var e *Error
		if !errors.As(f.err, &e) || len(e.Tried) != 2 || !errors.Is(e.Tried[0].Err, syscall.ECONNREFUSED) || e.Tried[0].Server != lb.s.addr {
			t.Errorf("%v", f.err)
		}
		if took := lb.l.Now().Sub(start); lb.world != nil && took > 500*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// TestCoalesce: equal questions are asked once, and a caller that leaves does
// not affect the others; the last one to leave ends the question.
func TestCoalesce(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		lb.s.add("a.test 60 A 192.0.2.1")
		r := lb.resolver()
		var all []*found
		for i := range 100 {
			name := "a.test"
			if i%2 == 0 {
				name = "A.tEsT."
			}
			all = append(all, lb.ask(r, name, A))
		}
		gone := &found{}
		cancel := r.Lookup(lb.l, "a.test", A, func(Answer, error) { gone.n++ })
		cancel()
		cancel()
		lb.until("all", func() bool {
			return !slices.ContainsFunc(all, func(f *found) bool { return f.n != 1 || f.err != nil })
		})
		if len(lb.s.queries) != 1 || gone.n != 0 {
			t.Errorf("queries %v, canceled got %d", lb.s.queries, gone.n)
		}
		all[0].a.Records[0].Addr = netip.Addr{} // the caller's own
		if !all[1].a.Records[0].Addr.IsValid() {
			t.Error("two callers have the same records")
		}
		cancel = r.Lookup(lb.l, "b.test", A, func(Answer, error) { gone.n++ })
		cancel()
		lb.clean(r)
		later := false
		lb.l.After(100*time.Millisecond, func() { later = true })
		lb.until("quiet", func() bool { return later })
		if gone.n != 0 {
			t.Error("a canceled lookup got its result")
		}
	})
}

func TestLimits(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		r := lb.resolver(WithLimits(4, 50))
		var all []*found
		most := 0
		for i := range 60 {
			lb.s.add(fmt.Sprintf("n%d.test 60 A 192.0.2.1", i))
			all = append(all, lb.ask(r, fmt.Sprintf("n%d.test", i), A))
		}
		lb.until("all", func() bool {
			most = max(most, len(r.client(lb.l).open))
			return !slices.ContainsFunc(all, func(f *found) bool { return f.n != 1 })
		})
		for i, f := range all {
			if busy := errors.Is(f.err, ErrBusy); busy != (i >= 50) {
				t.Errorf("%d: %v", i, f.err)
			}
		}
		if most > 4 {
			t.Errorf("%d sockets at once", most)
		}
		lb.clean(r)
	})
}
