package dns

import (
	crand "crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// TestForgery: replies with every possible id, to the right port and seemingly
// from the right server, right in everything except what a forger cannot know.
// None is believed, and the right answer comes all the same.
func TestForgery(t *testing.T) {
	for _, c := range []struct {
		name  string
		knows string // what the forger happens to know
	}{{"nothing", ""}, {"the id", "id"}, {"the case", "case"}} {
		t.Run(c.name, func(t *testing.T) {
			lb := simLab(t, sim.Faults{Latency: 10 * time.Millisecond})
			lb.s.add("averyveryveryverylongname.test 60 A 192.0.2.1")
			r := lb.resolver(WithRandom(crand.Reader))
			lb.s.udp = func(e *weir.PacketEndpoint, q dnsmessage.Message, reply []byte, from weir.PacketAddr) bool {
				id := q.ID
				forged := q
				forged.Response, forged.RecursionAvailable, forged.Additionals = true, true, nil
				name := q.Questions[0].Name
				if c.knows != "case" {
					name = dnsmessage.MustNewName(lower(name.String()))
				}
				forged.Questions = []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
				forged.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 60},
					Body:   &dnsmessage.AResource{A: [4]byte{6, 6, 6, 6}},
				}}
				for i := range 1 << 16 {
					forged.ID = uint16(i)
					if c.knows == "id" && i > 0 {
						break
					}
					if c.knows == "id" {
						forged.ID = id
					} else if forged.ID == id && c.knows == "case" {
						continue // a forger who knows both has won
					}
					b, err := forged.Pack()
					if err != nil {
						t.Fatal(err)
					}
					lb.world.Inject(lb.s.addr, from.IP, b)
				}
				return true // the server's own reply is lost
			}
			f := lb.lookup(r, "averyveryveryverylongname.test", A)
			if f.err != nil || len(f.a.Records) != 1 || f.a.Records[0].Addr != netip.MustParseAddr("192.0.2.1") {
				t.Errorf("%+v, %v", f.a, f.err)
			}
			lb.clean(r)
		})
	}
}

// chiSquare is the chi-square statistic of counts that ought to be equal, as
// the number of standard deviations from its mean.
func chiSquare(counts []int) float64 {
	total := 0
	for _, n := range counts {
		total += n
	}
	want := float64(total) / float64(len(counts))
	x := 0.0
	for _, n := range counts {
		x += (float64(n) - want) * (float64(n) - want) / want
	}
	free := float64(len(counts) - 1)
	return (x - free) / math.Sqrt(2*free)
}

// TestUnpredictable: ids, source ports and letter cases of 100,000 queries are
// evenly spread, and no pair of port and id is in use twice at a time
// (docs/promises.md, Names).
func TestUnpredictable(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 20_000
	}
	lb := simLab(t, sim.Faults{Latency: time.Microsecond})
	r := lb.resolver(WithRandom(crand.Reader), WithCache(0))
	ids, ports, high, upper := make([]int, 256), make([]int, 63), make([]int, 256), make([]int, 2)
	type pair struct {
		port netip.AddrPort
		id   uint16
	}
	flight := map[pair]bool{}
	done := 0
	for i := range n {
		r.Lookup(lb.l, fmt.Sprintf("aaaa%d.test", i), A, func(Answer, error) { done++ })
		if i%100 < 99 {
			continue
		}
		lb.until("answers", func() bool { return done == i+1 })
		for k := range lb.s.ids {
			id, port := lb.s.ids[k], lb.s.froms[k]
			ids[id&255]++
			high[id>>8]++
			ports[int(port.Port()-portFirst)/1024]++
			if p := (pair{port, id}); flight[p] {
				t.Errorf("port %v and id %d twice in flight", port, id)
			} else {
				flight[p] = true
			}
			for _, ch := range lb.s.names[k][:4] {
				if ch == 'A' {
					upper[1]++
				} else {
					upper[0]++
				}
			}
		}
		clear(flight)
		lb.s.ids, lb.s.froms, lb.s.names, lb.s.queries = nil, nil, nil, nil
	}
	for name, counts := range map[string][]int{"ids": ids, "ids' upper half": high, "ports": ports, "case": upper} {
		// Six standard deviations: less than one run in a million.
		if off := chiSquare(counts); off > 6 {
			t.Errorf("%s: chi-square is %.1f standard deviations off: %v", name, off, counts)
		}
	}
	lb.clean(r)
	if u := lb.world.Host("client").Usage(); u.Handles != 0 {
		t.Errorf("left over: %+v", u)
	}
}

// TestSeeds: under faults of every kind each lookup has one result, which is the
// right one or an error, and nothing is left over (G1, G6, G10, behaviour 70).
func TestSeeds(t *testing.T) {
	seeds := uint64(1500)
	if testing.Short() {
		seeds = 100
	}
	right, failed := 0, 0
	for seed := range seeds {
		a, b := dnsSeed(t, seed+1)
		right += a
		failed += b
	}
	t.Logf("%d right, %d failed", right, failed)
	if right < failed/2 {
		t.Errorf("%d right and %d failed: the faults leave nothing to see", right, failed)
	}
}

func dnsSeed(t *testing.T, seed uint64) (right, failed int) {
	faults := sim.Draw(seed)
	// A fault that makes TCP take a minute for a few bytes does not end in
	// time.
	faults.Latency, faults.Jitter = min(faults.Latency, 200*time.Millisecond), min(faults.Jitter, 200*time.Millisecond)
	if faults.ReceiveBuffer > 0 {
		faults.ReceiveBuffer, faults.SendBuffer = max(faults.ReceiveBuffer, 512), max(faults.SendBuffer, 512)
	}
	faults.OpenError, faults.Shortage, faults.Stall, faults.Crash = 0, 0, 0, 0 // until the server is there
	w := sim.New(seed, sim.Config{Faults: sim.Faults{}})
	loop := func(host string) *weir.Loop {
		be, err := w.Host(host).Backend()
		if err != nil {
			t.Fatal(err)
		}
		l := quietLoop(t, weir.WithBackend(be))
		be.Drive(l)
		return l
	}
	server, client := loop("server"), loop("client")
	s := newTestServer(t, server, netip.AddrPortFrom(w.Host("server").Addrs()[0], 53).String())
	for i := range 20 {
		s.add(fmt.Sprintf("n%d.test 30 A 192.0.2.%d", i, i), fmt.Sprintf("n%d.test 30 AAAA 2001:db8::%d", i, i),
			fmt.Sprintf("c%d.test 30 CNAME n%d.test", i, i))
	}
	s.edit = func(m *dnsmessage.Message, tcp bool) { m.Truncated = !tcp && m.ID%5 == 0 }
	faults.OpenError = sim.Draw(seed).OpenError
	w.SetFaults(faults)
	r := New(WithConfig(Config{Servers: []netip.AddrPort{s.addr, s.addr}, Ndots: 1, Timeout: 5 * time.Second}),
		WithHosts(nil), WithRandom(chacha(byte(seed))), WithStale(time.Duration(seed%2)*time.Hour), WithLimits(8, 0))
	results := make([]int, 60)
	for i := range results {
		i := i
		k := i % 20
		ask := func() {
			check := func(addrs []netip.Addr, err error) {
				results[i]++
				if err != nil {
					failed++
					var e *Error
					if !errors.As(err, &e) {
						t.Errorf("seed %d: %T %v", seed, err, err)
					}
					return
				}
				right++
				for _, a := range addrs {
					if a != netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", k)) && a != netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", k)) {
						t.Errorf("seed %d: n%d.test is %v", seed, k, a)
					}
				}
				if len(addrs) == 0 {
					t.Errorf("seed %d: no addresses and no error", seed)
				}
			}
			name := fmt.Sprintf("n%d.test", k)
			if i%3 == 0 {
				name = fmt.Sprintf("c%d.test", k)
			}
			r.LookupNetIP(client, "ip", name, check)
		}
		client.After(time.Duration(i)*50*time.Millisecond, ask)
	}
	if err := w.RunFor(5 * time.Minute); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	w.HealAll()
	if err := w.RunFor(5 * time.Minute); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	for i, n := range results {
		if n != 1 {
			t.Errorf("seed %d: lookup %d has %d results", seed, i, n)
		}
	}
	c := r.client(client)
	if len(c.open)+c.waiting+len(c.askers) != 0 || len(c.questions) != 0 {
		t.Errorf("seed %d: left over: %d exchanges, %d questions", seed, len(c.open), len(c.questions))
	}
	if u := w.Host("client").Usage(); u.Handles != 0 || u.Armed != 0 || u.Sockets != 0 {
		t.Errorf("seed %d: left over: %+v", seed, u)
	}
	if v := w.Violations(); len(v) > 0 {
		t.Errorf("seed %d: %v", seed, v)
	}
	// Once the faults have ended, everything can be found.
	ok := 0
	client.Soon(func() {
		for i := range 20 {
			r.LookupNetIP(client, "ip4", fmt.Sprintf("n%d.test", i), func(a []netip.Addr, err error) {
				if err == nil && len(a) == 1 {
					ok++
				} else {
					t.Logf("seed %d: n%d.test: %v, %v", seed, i, a, err)
				}
			})
		}
	})
	if err := w.RunFor(time.Minute); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if ok != 20 {
		t.Errorf("seed %d: %d of 20 names found after the faults", seed, ok)
	}
	_, _ = server.Close(), client.Close()
	return right, failed
}

// FuzzReply: whatever arrives, reading it neither panics nor believes more than
// the question allows.
func FuzzReply(f *testing.F) {
	name := dnsmessage.MustNewName("a.TesT.")
	for _, t := range []Type{A, AAAA, CNAME, MX, TXT, SRV, HTTPS, SOA, PTR, NS, Type(99)} {
		q := query{id: 7, name: name, qtype: t, edns: true}
		b, err := q.pack(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint16(t), b)
		b = append([]byte(nil), b...)
		b[2] |= 0x80
		f.Add(uint16(t), b)
	}
	for _, lines := range [][]string{
		{"a.test 60 CNAME b.test", "b.test 60 A 192.0.2.1"},
		{"a.test 60 A 192.0.2.1"},
		{"a.test 60 TXT x y"},
		{"a.test 60 HTTPS ."},
		{"a.test 60 CNAME a.test"},
		{},
	} {
		s := &testServer{t: &testing.T{}, zone: map[key][]Record{}, exists: map[string]bool{}, soa: time.Minute}
		s.add(lines...)
		for _, t := range []Type{A, TXT, HTTPS} {
			m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}}
			m.Questions = []dnsmessage.Question{{Name: name, Type: dnsmessage.Type(t), Class: dnsmessage.ClassINET}}
			f.Add(uint16(t), s.reply(m, false))
		}
	}
	f.Fuzz(func(t *testing.T, qtype uint16, msg []byte) {
		for _, fold := range []bool{false, true} {
			q := query{id: 7, name: name, qtype: Type(qtype), fold: fold}
			r, err := q.read(msg)
			if err != nil {
				continue
			}
			at := "a.test."
			if len(r.aliases) > aliasesMax+1 {
				t.Fatalf("%d aliases", len(r.aliases))
			}
			for _, a := range r.aliases {
				if lower(a.Name) != at || a.Type != CNAME || !validName(a.Target) && a.Target != "." {
					t.Fatalf("alias %+v of %s", a, at)
				}
				at = lower(a.Target)
			}
			for _, rec := range r.records {
				if lower(rec.Name) != at || rec.Type != Type(qtype) || rec.TTL < 0 {
					t.Fatalf("record %+v for %s", rec, at)
				}
				for _, c := range rec.String() {
					if c < ' ' || c == 0x7f {
						t.Fatalf("%q is not printable", rec.String())
					}
				}
			}
			if r.negative < 0 || r.ttl() < 0 {
				t.Fatalf("TTL %v, %v", r.negative, r.ttl())
			}
		}
	})
}

// FuzzConfig: no text makes a configuration that cannot be used.
func FuzzConfig(f *testing.F) {
	f.Add("nameserver 1.1.1.1\nsearch a b\noptions ndots:2")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Servers) == 0 || len(c.Servers) > serversMax || c.Attempts < 1 || c.Timeout <= 0 || c.Ndots < 0 {
			t.Fatalf("%+v", c)
		}
		for _, name := range c.candidates("host") {
			if !validName(name) {
				t.Fatalf("candidate %q", name)
			}
		}
		if _, err := ParseHosts(strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	})
}
