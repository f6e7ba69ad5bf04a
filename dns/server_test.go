package dns

import (
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
	"github.com/weir-io/weir/weirtest"
)

// testServer answers from a table, and misbehaves where a test asks it to. It is
// itself a program on weir's datagram endpoints and streams.
type testServer struct {
	t       *testing.T
	l       *weir.Loop
	addr    netip.AddrPort
	zone    map[key][]Record
	soa     time.Duration // of negative answers; 0: they have no SOA
	exists  map[string]bool
	queries []string // "name TYPE udp", in lower case
	froms   []netip.AddrPort
	ids     []uint16
	names   []string // as they came
	sizes   []int    // in bytes
	// udp and tcp, if set, decide what is sent for a query instead of the reply.
	udp func(e *weir.PacketEndpoint, q dnsmessage.Message, reply []byte, from weir.PacketAddr) bool
	tcp func(t weir.Transport, q dnsmessage.Message, reply []byte) bool
	// edit, if set, changes the reply.
	edit func(m *dnsmessage.Message, overTCP bool)
	e    *weir.PacketEndpoint
	ln   *weir.Listener
}

func newTestServer(t *testing.T, l *weir.Loop, address string) *testServer {
	t.Helper()
	s := &testServer{t: t, l: l, zone: map[key][]Record{}, exists: map[string]bool{}, soa: time.Minute}
	for range 50 {
		e, err := l.ListenPacket("udp4", address, s)
		if err != nil {
			t.Fatal(err)
		}
		s.addr = e.Local().IP
		if s.ln, err = l.Listen("tcp4", s.addr.String(), func(weir.Transport) weir.Protocol { return &testStream{s: s} }); err == nil {
			s.e = e
			return s
		}
		_ = e.Close() // somebody has the port of TCP
	}
	t.Fatal("no port for both UDP and TCP")
	return nil
}

// add puts a record into the zone: "name TTL TYPE value...".
func (s *testServer) add(lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		f := strings.Fields(line)
		typ, err := ParseType(f[2])
		if err != nil {
			s.t.Fatal(err)
		}
		ttl, err := time.ParseDuration(f[1] + "s")
		if err != nil {
			s.t.Fatal(err)
		}
		r := Record{Name: absolute(f[0]), Type: typ, TTL: ttl}
		switch typ {
		case A, AAAA:
			r.Addr = netip.MustParseAddr(f[3])
		case TXT:
			r.Text = f[3:]
		case MX:
			r.Priority, r.Target = 10, absolute(f[3])
		case SRV:
			r.Priority, r.Weight, r.Port, r.Target = 1, 2, 3, absolute(f[3])
		case HTTPS:
			r.Priority, r.Target, r.Params = 1, absolute(f[3]), []Param{{Key: 1, Value: []byte("\x02h2")}}
		default:
			r.Target = absolute(f[3])
		}
		k := key{lower(r.Name), typ}
		s.zone[k] = append(s.zone[k], r)
		s.exists[k.name] = true
	}
}

// reply is the right answer to a query.
func (s *testServer) reply(q dnsmessage.Message, overTCP bool) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionDesired: true, RecursionAvailable: true}, Questions: q.Questions}
	question := q.Questions[0]
	name := lower(question.Name.String())
	for range 50 {
		m.RCode = dnsmessage.RCodeNameError
		if s.exists[name] {
			m.RCode = dnsmessage.RCodeSuccess
		}
		if rr := s.zone[key{name, Type(question.Type)}]; len(rr) > 0 {
			for _, r := range rr {
				m.Answers = append(m.Answers, resource(s.t, r))
			}
			break
		}
		alias := s.zone[key{name, CNAME}]
		if len(alias) == 0 || len(m.Answers) > 40 {
			break
		}
		m.Answers = append(m.Answers, resource(s.t, alias[0]))
		name = lower(alias[0].Target)
	}
	if (len(m.Answers) == 0 || m.RCode != dnsmessage.RCodeSuccess) && s.soa > 0 {
		m.Authorities = append(m.Authorities, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Class: dnsmessage.ClassINET, TTL: 3600},
			Body: &dnsmessage.SOAResource{
				NS: dnsmessage.MustNewName("ns."), MBox: dnsmessage.MustNewName("root."), MinTTL: uint32(s.soa / time.Second),
			},
		})
	}
	if s.edit != nil {
		s.edit(&m, overTCP)
	}
	b, err := m.Pack()
	if err != nil {
		s.t.Error(err)
	}
	return b
}

func resource(t *testing.T, r Record) dnsmessage.Resource {
	name := dnsmessage.MustNewName
	res := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name(r.Name), Class: dnsmessage.ClassINET, TTL: uint32(r.TTL / time.Second)}}
	switch r.Type {
	case A:
		res.Body = &dnsmessage.AResource{A: r.Addr.As4()}
	case AAAA:
		res.Body = &dnsmessage.AAAAResource{AAAA: r.Addr.As16()}
	case CNAME:
		res.Body = &dnsmessage.CNAMEResource{CNAME: name(r.Target)}
	case PTR:
		res.Body = &dnsmessage.PTRResource{PTR: name(r.Target)}
	case NS:
		res.Body = &dnsmessage.NSResource{NS: name(r.Target)}
	case MX:
		res.Body = &dnsmessage.MXResource{Pref: r.Priority, MX: name(r.Target)}
	case SRV:
		res.Body = &dnsmessage.SRVResource{Priority: r.Priority, Weight: r.Weight, Port: r.Port, Target: name(r.Target)}
	case TXT:
		res.Body = &dnsmessage.TXTResource{TXT: r.Text}
	case HTTPS:
		b := &dnsmessage.HTTPSResource{}
		b.Priority, b.Target = r.Priority, name(r.Target)
		for _, p := range r.Params {
			b.Params = append(b.Params, dnsmessage.SVCParam{Key: dnsmessage.SVCParamKey(p.Key), Value: p.Value})
		}
		res.Body = b
	default:
		t.Fatalf("no %v in tests", r.Type)
	}
	return res
}

func (s *testServer) note(p []byte, over string, from netip.AddrPort) (q dnsmessage.Message, ok bool) {
	if err := q.Unpack(p); err != nil || len(q.Questions) != 1 {
		s.t.Errorf("a query that cannot be read: %v", err)
		return q, false
	}
	name := q.Questions[0].Name.String()
	s.queries = append(s.queries, strings.ToLower(name)+" "+Type(q.Questions[0].Type).String()+" "+over)
	s.froms, s.ids, s.names = append(s.froms, from), append(s.ids, q.ID), append(s.names, name)
	s.sizes = append(s.sizes, len(p))
	return q, true
}

func (s *testServer) EndpointMade(*weir.PacketEndpoint) {}
func (s *testServer) EndpointLost(error)                {}
func (s *testServer) PacketReceived(p []byte, from weir.PacketAddr) {
	q, ok := s.note(p, "udp", from.IP)
	if !ok {
		return
	}
	reply := s.reply(q, false)
	if s.udp != nil && s.udp(s.e, q, reply, from) {
		return
	}
	_ = s.e.SendTo(reply, from)
}

type testStream struct {
	s *testServer
	t weir.Transport
}

func (p *testStream) ConnectionMade(t weir.Transport) { p.t = t }
func (p *testStream) ConnectionLost(error)            {}
func (p *testStream) DataReceived(b []byte) (int, error) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return 0, nil
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	from := p.t.RemoteAddr().(*net.TCPAddr).AddrPort()
	q, ok := p.s.note(b[2:n], "tcp", from)
	if !ok {
		return n, nil
	}
	reply := p.s.reply(q, true)
	if p.s.tcp != nil && p.s.tcp(p.t, q, reply) {
		return n, nil
	}
	_, _ = p.t.Write(binary.BigEndian.AppendUint16(nil, uint16(len(reply))))
	_, _ = p.t.Write(reply)
	return n, nil
}

// lab is a server and a client that ask each other.
type lab struct {
	t     *testing.T
	s     *testServer
	l     *weir.Loop // the client's
	until func(what string, cond func() bool)
	world *sim.World // nil on real sockets

	timeout time.Duration // of its resolvers
}

// silence sets how long the client waits for a silent server on real sockets.
// No other test should end that way, even on a busy machine.
func (lb *lab) silence(d time.Duration) {
	if lb.world == nil {
		lb.timeout = d
	}
}

func quietLoop(t *testing.T, opts ...weir.LoopOption) *weir.Loop {
	t.Helper()
	l, err := weir.NewLoop(append(opts, weir.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))))...)
	if err != nil {
		t.Skip(err)
	}
	return l
}

// simLab makes a simulated lab.
func simLab(t *testing.T, faults sim.Faults) *lab {
	t.Helper()
	w := sim.New(1, sim.Config{Faults: faults})
	loop := func(host string) *weir.Loop {
		be, err := w.Host(host).Backend()
		if err != nil {
			t.Fatal(err)
		}
		l := quietLoop(t, weir.WithBackend(be), weir.WithErrorHandler(func(err error) { t.Error(err) }))
		be.Drive(l)
		return l
	}
	lb := &lab{t: t, world: w, timeout: 250 * time.Millisecond}
	server := loop("server")
	lb.l = loop("client")
	lb.s = newTestServer(t, server, netip.AddrPortFrom(w.Host("server").Addrs()[0], 53).String())
	lb.until = func(what string, cond func() bool) {
		t.Helper()
		if err := w.Run(cond); err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
	}
	return lb
}

// onLabs runs a test on the simulator and on loopback with each backend.
func onLabs(t *testing.T, f func(t *testing.T, lb *lab)) {
	t.Helper()
	t.Run("sim", func(t *testing.T) { f(t, simLab(t, sim.Faults{})) })
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			l := quietLoop(t, weir.WithBackendName(name), weir.WithErrorHandler(func(err error) { t.Error(err) }))
			t.Cleanup(func() { _ = l.Close() })
			lb := &lab{t: t, l: l, s: newTestServer(t, l, "127.0.0.1:0"), timeout: 10 * time.Second}
			lb.until = func(what string, cond func() bool) {
				t.Helper()
				weirtest.Until(t, l, what, cond)
			}
			f(t, lb)
		})
	}
}

// pass lets simulated time pass, and lets the client's loop notice.
func (lb *lab) pass(d time.Duration) {
	lb.t.Helper()
	if err := lb.world.RunFor(d); err != nil {
		lb.t.Fatal(err)
	}
	if err := lb.l.Turn(0); err != nil {
		lb.t.Fatal(err)
	}
}

// resolver makes a client of the lab's server, with randomness from a seed.
func (lb *lab) resolver(opts ...Option) *Resolver {
	return New(append([]Option{
		WithConfig(Config{Servers: []netip.AddrPort{lb.s.addr}, Ndots: 1, Timeout: lb.timeout}), WithHosts(nil), WithRandom(chacha(1)),
	}, opts...)...)
}

func chacha(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// found is the outcome of a lookup.
type found struct {
	a     Answer
	addrs []netip.Addr
	err   error
	n     int
}

func (lb *lab) ask(r *Resolver, name string, t Type) *found {
	f := &found{}
	r.Lookup(lb.l, name, t, func(a Answer, err error) { f.a, f.err = a, err; f.n++ })
	return f
}

func (lb *lab) lookup(r *Resolver, name string, t Type) *found {
	lb.t.Helper()
	f := lb.ask(r, name, t)
	if f.n != 0 {
		lb.t.Error("called from inside")
	}
	lb.until("the answer", func() bool { return f.n > 0 })
	return f
}

func (lb *lab) host(r *Resolver, network, name string) *found {
	lb.t.Helper()
	f := &found{}
	r.LookupNetIP(lb.l, network, name, func(a []netip.Addr, err error) { f.addrs, f.err = a, err; f.n++ })
	lb.until("the addresses", func() bool { return f.n > 0 })
	return f
}

// clean checks that nothing is left over (G6, behaviour 70).
func (lb *lab) clean(r *Resolver) {
	lb.t.Helper()
	c := r.client(lb.l)
	if len(c.open)+c.waiting+len(c.askers) != 0 || len(c.questions) != 0 {
		lb.t.Errorf("left over: %d exchanges, %d questions", len(c.open), len(c.questions))
	}
}
