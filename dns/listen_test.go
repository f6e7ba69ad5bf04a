package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// rawAsker keeps what a server sends to one who asks.
type rawAsker struct {
	e   *weir.PacketEndpoint
	got [][]byte
}

func (r *rawAsker) EndpointMade(*weir.PacketEndpoint) {}
func (r *rawAsker) EndpointLost(error)                {}
func (r *rawAsker) PacketReceived(p []byte, _ weir.PacketAddr) {
	r.got = append(r.got, append([]byte{}, p...))
}

// newListening makes a Server in front of a lab's server, and a Resolver that asks it.
func newListening(t *testing.T, lb *lab, c ServerConfig, opts ...Option) (*Server, *Resolver) {
	t.Helper()
	if c.Resolver == nil {
		c.Resolver = New(append([]Option{WithServers(lb.s.addr), WithHosts(nil), WithTimeout(lb.timeout, 1)}, opts...)...)
	}
	host := lb.s.addr.Addr()
	if lb.world != nil {
		host = lb.world.Host("client").Addrs()[0]
	}
	s, err := NewServer(lb.l, "udp4", netip.AddrPortFrom(host, 0).String(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s, New(WithServers(s.Addr()), WithHosts(nil), WithCache(0), WithTimeout(10*time.Second, 1))
}

// TestServer: what a client is told is what the servers behind say: records of many
// types, aliases, answers too long for a datagram, names that do not exist or have no
// such records. A second question is answered from the cache.
func TestServer(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		long := strings.Repeat("x", 200)
		lb.s.add("host.test. 60 A 192.0.2.1", "host.test. 60 AAAA 2001:db8::1", "alias.test. 60 CNAME host.test.")
		for range 12 {
			lb.s.add("long.test. 60 TXT " + long)
		}
		s, r := newListening(t, lb, ServerConfig{})
		ask := func(name string, typ Type) (a Answer, err error) {
			t.Helper()
			done := false
			r.Lookup(lb.l, name, typ, func(got Answer, e error) { a, err, done = got, e, true })
			lb.until(name, func() bool { return done })
			return a, err
		}
		for range 2 {
			if a, err := ask("host.test.", A); err != nil || len(a.Records) != 1 || a.Records[0].Addr.String() != "192.0.2.1" || a.TTL > time.Minute || a.TTL < 50*time.Second {
				t.Errorf("%+v, %v", a, err)
			}
		}
		if n := len(lb.s.queries); n != 1 {
			t.Errorf("%d questions to the server behind, of 2", n)
		}
		if a, err := ask("alias.test.", AAAA); err != nil || len(a.Aliases) != 1 || len(a.Records) != 1 {
			t.Errorf("%+v, %v", a, err)
		}
		if a, err := ask("long.test.", TXT); err != nil || len(a.Records) != 12 || a.Records[11].Text[0] != long {
			t.Errorf("%d records, %v", len(a.Records), err)
		}
		var e *Error
		if _, err := ask("none.test.", A); !errors.As(err, &e) || !errors.Is(err, ErrNotFound) || !e.NoName {
			t.Errorf("no such name: %v", err)
		}
		if _, err := ask("host.test.", MX); !errors.As(err, &e) || !errors.Is(err, ErrNotFound) || e.NoName {
			t.Errorf("no such records: %v", err)
		}
		if a, err := ask("x.localhost.", A); err != nil || !a.Records[0].Addr.IsLoopback() {
			t.Errorf("%+v, %v", a, err)
		}
		if s.questions != 0 {
			t.Errorf("%d questions under way", s.questions)
		}
		s.Close()
	})
}

// TestServerFromAsked: a server on every address answers from the one that was asked,
// also what it had to look up first (A4).
func TestServerFromAsked(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		if lb.world != nil || !lb.l.Backend().Packets.Local {
			t.Skip("the backend does not tell local addresses (BackendInfo.Packets)")
		}
		lb.s.add("host.test. 60 A 192.0.2.1", "host.test. 60 AAAA 2001:db8::1")
		s, err := NewServer(lb.l, "udp", ":0", ServerConfig{
			Resolver: New(WithServers(lb.s.addr), WithHosts(nil), WithTimeout(lb.timeout, 1)),
		})
		if err != nil {
			t.Fatal(err)
		}
		r := New(WithServers(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), s.Addr().Port())), WithHosts(nil), WithCache(0), WithTimeout(2*time.Second, 1))
		for _, typ := range []Type{A, AAAA, A} { // the last is in the server's cache
			var got error
			done := false
			r.Lookup(lb.l, "host.test.", typ, func(_ Answer, err error) { got, done = err, true })
			lb.until("an answer", func() bool { return done })
			if got != nil {
				t.Errorf("%v: %v", typ, got)
			}
		}
		r.Forget(lb.l)
		s.Close()
	})
}

// TestServerRefuses: what is not served is said to be so, what is no question gets no
// answer, and neither do clients that are not to be served.
func TestServerRefuses(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	lb.s.add("host.test. 60 A 192.0.2.1")
	allowed := true
	s, _ := newListening(t, lb, ServerConfig{Allow: func(netip.Addr) bool { return allowed }})
	r := &rawAsker{}
	var err error
	if r.e, err = lb.l.ListenPacket("udp4", "0.0.0.0:0", r); err != nil {
		t.Fatal(err)
	}
	message := func(name string, typ, class int) []byte {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.Type(typ), Class: dnsmessage.Class(class)}},
		}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	send := func(p []byte) {
		t.Helper()
		r.got = nil
		if err := r.e.SendTo(p, weir.PacketAddr{IP: s.Addr()}); err != nil {
			t.Fatal(err)
		}
		if err := lb.world.RunFor(time.Second); err != nil {
			t.Fatal(err)
		}
	}
	two := message("host.test.", 1, 1)
	two[5] = 2
	update := message("host.test.", 1, 1)
	update[2] |= 5 << 3
	for _, c := range []struct {
		what string
		p    []byte
		code dnsmessage.RCode
	}{
		{"a question", message("HOST.test.", 1, 1), dnsmessage.RCodeSuccess},
		{"ANY", message("host.test.", 255, 1), dnsmessage.RCodeNotImplemented},
		{"a transfer", message("host.test.", 252, 1), dnsmessage.RCodeNotImplemented},
		{"class CHAOS", message("version.bind.", 16, 3), dnsmessage.RCodeRefused},
		{"onion", message("x.onion.", 1, 1), dnsmessage.RCodeNameError},
		{"a name that no host has", message("a$b.test.", 1, 1), dnsmessage.RCodeRefused},
		{"two questions", two, dnsmessage.RCodeFormatError},
		{"an update", update, dnsmessage.RCodeNotImplemented},
		{"a header", message("host.test.", 1, 1)[:12], dnsmessage.RCodeFormatError},
	} {
		send(c.p)
		var m dnsmessage.Message
		if len(r.got) != 1 || m.Unpack(r.got[0]) != nil || m.RCode != c.code || !m.Response || m.ID != 7 {
			t.Errorf("%s: %+v", c.what, m)
		}
		if c.code == 0 && (len(m.Answers) != 1 || m.Questions[0].Name.String() != "HOST.test.") {
			t.Errorf("%s: %+v", c.what, m)
		}
	}
	answer := message("host.test.", 1, 1)
	answer[2] |= 0x80
	for _, p := range [][]byte{nil, {1, 2, 3}, answer} {
		send(p)
		if len(r.got) != 0 {
			t.Errorf("%x got an answer", p)
		}
	}
	allowed = false
	send(message("host.test.", 1, 1))
	if len(r.got) != 0 || s.Count().Refused != 1 {
		t.Errorf("%d answers to one who is not allowed, %+v", len(r.got), s.Count())
	}
	for a, want := range map[string]bool{"127.0.0.1": true, "10.1.2.3": true, "fe80::1": true, "192.0.2.1": false, "2001:db8::1": false} {
		if isNear(netip.MustParseAddr(a)) != want {
			t.Errorf("%s is served: %v", a, !want)
		}
	}
}

// TestServerPortTaken: where TCP cannot have the port that UDP was given, another is
// taken, and the first attempt's end is not the server's.
func TestServerPortTaken(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	lb.s.add("host.test. 60 A 192.0.2.1")
	lb.world.Fail(sim.OpenCall, 2, syscall.EADDRINUSE) // the first TCP socket
	s, r := newListening(t, lb, ServerConfig{Lost: func(err error) { t.Errorf("lost: %v", err) }})
	var got error
	done := false
	r.Lookup(lb.l, "host.test.", A, func(_ Answer, err error) { got, done = err, true })
	lb.until("an answer", func() bool { return done })
	if got != nil || s.Count() != (ServerCount{Questions: 1}) {
		t.Errorf("%v, %+v", got, s.Count())
	}
}

// TestServerRefusesConnections: who is not to be answered takes no place among the
// connections either.
func TestServerRefusesConnections(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		s, _ := newListening(t, lb, ServerConfig{Allow: func(netip.Addr) bool { return false }})
		p := &turnedAway{}
		lb.l.Connect("tcp4", s.Addr().String(), p)
		lb.until("the end of the connection", func() bool { return p.lost })
		if c := s.Count(); c.Refused != 1 || c.Connections != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// turnedAway is a client that waits for its end; a reset may come before its connect returns.
type turnedAway struct {
	weir.NopProtocol
	lost bool
}

func (p *turnedAway) ConnectionLost(error)             { p.lost = true }
func (p *turnedAway) ConnectFailed(*weir.ConnectError) { p.lost = true }

// TestServerPipeline: many questions on one connection, more than are looked up at
// once, in pieces; all are answered, and the connection ends with its client's.
func TestServerPipeline(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		const n = 100
		for i := range n {
			lb.s.add(fmt.Sprintf("h%d.test. 60 A 192.0.2.%d", i, i))
		}
		s, _ := newListening(t, lb, ServerConfig{})
		r := New(WithServers(s.Addr()), WithHosts(nil), WithCache(0), WithTCP(), WithTimeout(10*time.Second, 1))
		var got []string
		most := 0
		for i := range n {
			r.Lookup(lb.l, fmt.Sprintf("h%d.test.", i), A, func(a Answer, err error) {
				most = max(most, s.questions)
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, a.Records[0].Addr.String())
			})
		}
		lb.until("all", func() bool { return len(got) == n })
		slices.Sort(got)
		if len(slices.Compact(got)) != n || most > serverPipeline {
			t.Errorf("%d answers, %d at once", len(got), most)
		}
		s.Close()
		r.Forget(lb.l) // which ends its connection
		lb.until("the end of the connection", func() bool { return s.tcp.Conns() == 0 })
	})
}

// TestServerNegative: a negative answer has the SOA that came with it, whose TTL is what
// is left of its time, also from the cache, and the aliases that lead to the name; a
// resolver that asks keeps it for so long (RFC 2308).
func TestServerNegative(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	lb.s.soa = 40 * time.Second
	lb.s.add("host.test. 60 A 192.0.2.1", "alias.test. 60 CNAME gone.test.")
	s, _ := newListening(t, lb, ServerConfig{})
	r := &rawAsker{}
	var err error
	if r.e, err = lb.l.ListenPacket("udp4", "0.0.0.0:0", r); err != nil {
		t.Fatal(err)
	}
	ask := func(name string, typ Type) (m dnsmessage.Message) {
		t.Helper()
		q := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.Type(typ), Class: dnsmessage.ClassINET}},
		}
		p, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		r.got = nil
		if err := r.e.SendTo(p, weir.PacketAddr{IP: s.Addr()}); err != nil {
			t.Fatal(err)
		}
		lb.until(name, func() bool { return len(r.got) == 1 })
		if err := m.Unpack(r.got[0]); err != nil {
			t.Fatal(err)
		}
		return m
	}
	check := func(name string, typ Type, code dnsmessage.RCode, answers int, least, most uint32) {
		t.Helper()
		m := ask(name, typ)
		if m.RCode != code || len(m.Answers) != answers || len(m.Authorities) != 1 {
			t.Fatalf("%s: %+v", name, m)
		}
		soa, ok := m.Authorities[0].Body.(*dnsmessage.SOAResource)
		if ttl := m.Authorities[0].Header.TTL; !ok || ttl < least || ttl > most || soa.MinTTL != 40 {
			t.Errorf("%s: a TTL of %d, %+v", name, ttl, soa)
		}
	}
	check("none.test.", A, dnsmessage.RCodeNameError, 0, 39, 40)
	check("host.test.", MX, dnsmessage.RCodeSuccess, 0, 39, 40)
	check("alias.test.", A, dnsmessage.RCodeNameError, 1, 39, 40)
	if err := lb.world.RunFor(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	asked := len(lb.s.queries)
	check("none.test.", A, dnsmessage.RCodeNameError, 0, 29, 30)
	check("alias.test.", A, dnsmessage.RCodeNameError, 1, 29, 30)
	if n := len(lb.s.queries); n != asked {
		t.Errorf("the server was asked %d times more", n-asked)
	}
	if m := ask("host.test.", A); len(m.Answers) != 1 || len(m.Authorities) != 0 {
		t.Errorf("%+v", m)
	}
	// A resolver above keeps it as well.
	above := New(WithServers(s.Addr()), WithHosts(nil), WithTimeout(10*time.Second, 1))
	for range 2 {
		done := false
		above.Lookup(lb.l, "none.test.", A, func(_ Answer, e error) {
			done = true
			if !errors.Is(e, ErrNotFound) {
				t.Error(e)
			}
		})
		lb.until("none.test.", func() bool { return done })
	}
	if n := s.Count().Questions; n != 7 {
		t.Errorf("%d questions of 7 that a resolver with a cache has", n)
	}
}

// TestServerStale: the cache's old answers serve others while the servers are silent.
func TestServerStale(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	lb.s.add("host.test. 1 A 192.0.2.1")
	_, r := newListening(t, lb, ServerConfig{}, WithStale(time.Hour))
	ask := func() (err error) {
		done := false
		r.Lookup(lb.l, "host.test.", A, func(_ Answer, e error) { err, done = e, true })
		lb.until("it", func() bool { return done })
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	if err := lb.world.RunFor(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	lb.s.udp = func(*weir.PacketEndpoint, dnsmessage.Message, []byte, weir.PacketAddr) bool { return true }
	if err := ask(); err != nil {
		t.Error(err)
	}
}

// FuzzServerQuestion: no question can do harm, and every answer can be read.
func FuzzServerQuestion(f *testing.F) {
	f.Add([]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"))
	f.Add([]byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		q, code, ok := readQuestion(p)
		if !ok {
			return
		}
		b := q.reply(code, Answer{Records: []Record{{Name: "a.", Type: A, Addr: netip.MustParseAddr("192.0.2.1")}}}, q.size)
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil || len(b) > udpSize || m.ID != q.header.ID {
			t.Errorf("%x: %v", b, err)
		}
	})
}
