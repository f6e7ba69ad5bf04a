package sim

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/dns"
	"github.com/weir-io/weir/internal/backend/sim"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/tests/internal/rig"
	"github.com/weir-io/weir/weirtest"
)

// A connect in these runs has five stages: a name, one of its addresses, a SOCKS5
// proxy, an HTTP proxy behind it, and TLS behind that. One server plays all of
// them on one connection, since proxies step aside, and a plan says at which stage
// it fails, and how.
type stagePlan struct {
	name string // how the name server answers
	dead bool   // no address leads to the server
	at   int    // the agreement that fails: see agreements; beyond them, none fails
	way  string
	stop time.Duration // when the connect is stopped; 0: never
}

const (
	socksGreeting = iota
	socksRequest
	httpConnect
	tlsHandshake
	agreements
)

var (
	nameWays = []string{"right", "right", "right", "truncated", "no name", "trouble", "silent", "forged", "no address", "cut"}
	wireWays = []string{"close", "abort", "silent", "garbage", "cut", "refuse", "endless", "drip"}
)

// stage is where the plan fails; "" if it does not.
func (p *stagePlan) stage() weir.Stage {
	switch {
	case p.name == "no name" || p.name == "trouble" || p.name == "silent" || p.name == "no address" || p.name == "cut":
		return weir.StageName
	case p.dead:
		return weir.StageConnect
	case p.at < agreements && p.way == "drip":
		return ""
	case p.at < tlsHandshake:
		return weir.StageProxy
	case p.at == tlsHandshake:
		return weir.StageHandshake
	}
	return ""
}

// stageRun is one seed.
type stageRun struct {
	seedRun
	plans []*stagePlan
	good  []netip.Addr // of the server
	dead  []netip.Addr
	trust *tls.Config
	own   [2]*tls.Config // the server's configurations, right and for another name
	ended []int
	open  []*stageClient
	ok    int
	// faulty says that there are faults besides those of the plans.
	faulty bool
}

// answerName is the name server: n3.test is for plan 3.
func (s *stageRun) answerName(query []byte, stream bool) [][]byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		s.bad("a query that cannot be read: %v", err)
		return nil
	}
	q := m.Questions[0]
	var i int
	if _, err := fmt.Sscanf(strings.ToLower(q.Name.String()), "n%d.test.", &i); err != nil || i >= len(s.plans) {
		i = -1
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	way := "no name"
	if i >= 0 {
		way = s.plans[i].name
	}
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 1}
	switch way {
	case "silent":
		return nil
	case "no name":
		m.RCode = dnsmessage.RCodeNameError
	case "trouble":
		m.RCode = dnsmessage.RCodeServerFailure
	case "truncated":
		m.Truncated = !stream
	case "no address":
	}
	if way == "right" || way == "forged" || way == "cut" || way == "truncated" && stream {
		all := s.dead
		if !s.plans[i].dead {
			all = append(append([]netip.Addr(nil), s.dead...), s.good...)
		}
		for _, a := range all {
			switch {
			case a.Is4() && q.Type == dnsmessage.TypeA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
			case a.Is6() && q.Type == dnsmessage.TypeAAAA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
			}
		}
	}
	b, err := m.Pack()
	if err != nil {
		s.bad("a reply: %v", err)
	}
	switch {
	case way == "cut":
		return [][]byte{b[:len(b)-1-s.r.IntN(4)]}
	case way == "forged" && !stream:
		bad := append([]byte(nil), b...)
		bad[s.r.IntN(2)] ^= byte(1 + s.r.IntN(255))
		return [][]byte{bad, b}
	}
	return [][]byte{b}
}

// nameStream is the name server over TCP.
type nameStream struct {
	weir.NopProtocol
	s *stageRun
	t weir.Transport
}

func (p *nameStream) ConnectionMade(t weir.Transport) { p.t = t }
func (p *nameStream) DataReceived(b []byte) (int, error) {
	if len(b) < 2 || len(b) < 2+int(b[0])<<8+int(b[1]) {
		return 0, nil
	}
	n := 2 + int(b[0])<<8 + int(b[1])
	for _, m := range p.s.answerName(b[2:n], true) {
		_, _ = p.t.Write(append([]byte{byte(len(m) >> 8), byte(len(m))}, m...))
	}
	return n, nil
}

// stageServer is the far side of one connection, up to TLS.
type stageServer struct {
	s    *stageRun
	plan *stagePlan
	t    weir.Transport
	at   int
	done bool // it sends no more
}

func (p *stageServer) ConnectionMade(t weir.Transport) { p.t = t }
func (p *stageServer) ConnectionLost(error)            { p.done = true }

// DataReceived takes one message of the client's and answers it.
func (p *stageServer) DataReceived(b []byte) (int, error) {
	if p.done {
		return len(b), nil
	}
	n, reply, no := 0, "", ""
	switch p.at {
	case socksGreeting:
		if len(b) >= 2 && len(b) >= 2+int(b[1]) {
			n, reply, no = 2+int(b[1]), "\x05\x00", "\x05\xff"
		}
	case socksRequest:
		if len(b) >= 5 && len(b) >= 7+int(b[4]) {
			n, reply, no = 7+int(b[4]), "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"
		}
	case httpConnect:
		if i := strings.Index(string(b), "\r\n\r\n"); i >= 0 {
			n, reply, no = i+4, "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
		}
	}
	if p.at == tlsHandshake { // not before the client has begun it
		p.tls()
		return 0, nil
	}
	if n == 0 {
		return 0, nil
	}
	way := "right"
	if p.plan.at == p.at {
		way = p.plan.way
	}
	p.at++
	p.say(way, reply, no)
	return n, nil
}

func (p *stageServer) start(cfg *tls.Config) {
	p.done = true
	layer.Start(p.t, layer.Above{
		Make:   func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) },
		Failed: func(*weir.AttemptError) {},
	}, layer.TLSServer(cfg))
}

// tls is a TLS server, right or as the plan says.
func (p *stageServer) tls() {
	way := "drip"
	if p.plan.at == tlsHandshake {
		way = p.plan.way
	}
	switch way {
	case "refuse":
		p.start(p.s.own[1])
	case "drip":
		p.start(p.s.own[0])
	case "cut":
		after := time.Duration(p.s.r.IntN(6_000)) * time.Microsecond
		t := p.t
		p.start(p.s.own[1]) // or the name is refused before the cut
		t.Loop().After(after, t.Abort)
	default:
		p.say(way, "\x16\x03\x03", "")
	}
}

// say answers with reply, or instead in one of wireWays.
func (p *stageServer) say(way, reply, no string) {
	switch way {
	case "right":
		_, _ = p.t.Write([]byte(reply))
		return
	case "drip":
		for i := range len(reply) {
			_, _ = p.t.Write([]byte(reply[i : i+1]))
		}
		return
	case "close":
		_ = p.t.Close()
	case "abort":
		p.t.Abort()
	case "garbage":
		b := make([]byte, 1+p.s.r.IntN(300))
		for i := range b {
			b[i] = 0x80 | byte(p.s.r.IntN(128))
		}
		_, _ = p.t.Write(b)
		_ = p.t.Close()
	case "cut":
		_, _ = p.t.Write([]byte(reply[:p.s.r.IntN(len(reply))]))
		_ = p.t.Close()
	case "refuse":
		_, _ = p.t.Write([]byte(no))
	case "endless":
		_, _ = p.t.Write([]byte(strings.Repeat("HTTP/1.1 200 and more", 8_000)))
	}
	p.done = true // silent
}

// stageClient sends a little over the finished connection, and wants it back.
type stageClient struct {
	s       *stageRun
	i       int
	t       weir.Transport
	timer   *weir.Timer
	got     int
	stopped bool
}

const stageBytes = 3000

func (p *stageClient) ConnectionMade(t weir.Transport) {
	p.t = t
	p.s.ended[p.i]++
	p.s.open = append(p.s.open, p)
	p.timer = t.Loop().After(time.Hour, t.Abort)
	if p.s.plans[p.i].stage() != "" {
		p.s.bad("plan %d: %+v: connected all the same", p.i, *p.s.plans[p.i])
	}
	b := make([]byte, stageBytes)
	for k := range b {
		b[k] = rig.Pattern(k)
	}
	_, _ = t.Write(b)
}

func (p *stageClient) DataReceived(b []byte) (int, error) {
	for k, c := range b {
		if c != rig.Pattern(p.got+k) {
			p.s.bad("plan %d: byte %d is not what was sent (G2)", p.i, p.got+k)
		}
	}
	if p.got += len(b); p.got == stageBytes {
		p.s.ok++
		_ = p.t.Close()
	}
	return len(b), nil
}

func (p *stageClient) ConnectionLost(error) {
	p.timer.Stop()
	at := slices.Index(p.s.open, p)
	if at < 0 {
		p.s.bad("plan %d: lost what is not open (G1)", p.i)
		return
	}
	p.s.open = slices.Delete(p.s.open, at, at+1)
}

func (p *stageClient) ConnectFailed(err *weir.ConnectError) {
	plan := p.s.plans[p.i]
	p.s.ended[p.i]++
	p.s.failed++
	switch {
	case p.t != nil:
		p.s.bad("plan %d: connected, and then failed: %v", p.i, err)
	case errors.Is(err, weir.ErrStopped) != p.stopped:
		p.s.bad("plan %d: stopped %t, and says %v", p.i, p.stopped, err)
	case p.stopped:
	case len(err.Attempts) == 0 && !errors.Is(err, os.ErrDeadlineExceeded):
		p.s.bad("plan %d: no attempt is listed: %v", p.i, err)
	case !p.s.faulty && err.Stage != plan.stage():
		p.s.bad("plan %d: %+v: failed at %s: %v", p.i, *plan, err.Stage, err)
	}
	if !p.s.faulty && !p.stopped && err.Stage != weir.StageName { // each address is reported
		for _, a := range err.Attempts {
			if a.Addr == nil {
				p.s.bad("plan %d: an attempt without its address: %v", p.i, err)
			}
		}
	}
}

// chacha8 is a resolver's randomness, from the seed.
func chacha8(seed uint64) *rand.ChaCha8 {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
}

func runStages(tb testing.TB, seed uint64, own [2]*tls.Config, trust *tls.Config) *stageRun {
	s := &stageRun{seedRun: seedRun{TB: tb, r: rand.New(rand.NewPCG(seed, 77))}, own: own, trust: trust}
	s.sim = weirtest.NewSim(s, seed)
	s.sim.OnStep(func() {
		for _, c := range s.open {
			if n := c.t.Buffered(); n > 64<<10+stageBytes {
				s.bad("plan %d: %d bytes are buffered (G3)", c.i, n)
			}
		}
	})
	server, names := s.sim.Host("server"), s.sim.Host("names")
	s.server = server.Loop()
	closed, dark, here := s.sim.Host("closed"), s.sim.Host("dark"), s.sim.Host("client")
	s.sim.Partition(here, dark)
	s.good = server.Addrs()[:1+s.r.IntN(2)]
	for _, h := range []*weirtest.SimHost{closed, dark} {
		s.dead = append(s.dead, h.Addrs()[s.r.IntN(2)])
	}
	s.dead = s.dead[s.r.IntN(2):]

	at := netip.AddrPortFrom(names.Addrs()[0], 53)
	if _, err := names.Loop().ListenPacket("udp4", at.String(), weir.PacketFunc(func(e *weir.PacketEndpoint, p []byte, from weir.PacketAddr) {
		for _, m := range s.answerName(p, false) {
			_ = e.SendTo(m, from)
		}
	}).Protocol()); err != nil {
		tb.Fatal(err)
	}
	if _, err := names.Loop().Listen("tcp", at.String(), func(weir.Transport) weir.Protocol { return &nameStream{s: s} }); err != nil {
		tb.Fatal(err)
	}
	const first = 1000
	for range 1 + s.r.IntN(5) {
		p := &stagePlan{name: nameWays[s.r.IntN(len(nameWays))], dead: s.r.IntN(8) == 0, at: s.r.IntN(agreements + 2), way: wireWays[s.r.IntN(len(wireWays))]}
		if s.r.IntN(3) == 0 {
			p.stop = 1 + time.Duration(s.r.Int64N(int64(30*time.Millisecond)<<(9*s.r.IntN(2))))
		}
		s.plans = append(s.plans, p)
	}
	s.plans = append(s.plans, &stagePlan{name: "right", at: agreements}) // for the end
	s.ended = make([]int, len(s.plans))
	for i, p := range s.plans {
		if _, err := s.server.Listen("tcp", fmt.Sprintf(":%d", first+i), func(weir.Transport) weir.Protocol { return &stageServer{s: s, plan: p} }); err != nil {
			tb.Fatal(err)
		}
	}
	r := dns.New(dns.WithConfig(dns.Config{Servers: []netip.AddrPort{at}, Ndots: 1, Timeout: 2 * time.Second}),
		dns.WithHosts(nil), dns.WithRandom(chacha8(seed)))
	s.client = here.NewLoop(weir.WithResolver(r))
	before := here.Usage()
	if s.faulty = s.r.IntN(2) == 0; s.faulty {
		f := sim.Draw(seed)
		// A fault that makes a round trip longer than a stage may take does not count as one that ends.
		f.Latency, f.Jitter = min(f.Latency, 200*time.Millisecond), min(f.Jitter, 200*time.Millisecond)
		if f.ReceiveBuffer > 0 {
			f.ReceiveBuffer = max(f.ReceiveBuffer, 512)
		}
		if f.SendBuffer > 0 {
			f.SendBuffer = max(f.SendBuffer, 512)
		}
		s.sim.SetFaults(weirtest.Faults(f))
	}

	secure := layer.TLS(s.trust)
	connect := func(i int) {
		c := &stageClient{s: s, i: i}
		opts := []weir.ConnectOption{weir.WithNameTimeout(time.Duration(1+s.r.IntN(20)) * time.Second), weir.WithConnectTimeout(time.Duration(1+s.r.IntN(20)) * time.Second)}
		if s.r.IntN(4) == 0 {
			opts = append(opts, weir.WithSequential())
		}
		if s.r.IntN(4) == 0 {
			opts = append(opts, weir.WithTimeout(time.Duration(70+s.r.IntN(60))*time.Second))
		}
		if i == len(s.plans)-1 {
			opts = nil
		}
		stack := layer.Client(c, proxy.SOCKS5("second.test:8080"), proxy.Connect("server.test:443"), secure)
		x := s.client.Connect("tcp", fmt.Sprintf("n%d.test:%d", i, first+i), stack, opts...)
		if stop := s.plans[i].stop; stop > 0 {
			s.client.After(stop, func() {
				if c.stopped = x.Stop(); c.stopped && (c.t != nil || s.ended[i] > 0) {
					s.bad("plan %d: stopped what was over", i)
				}
				if !c.stopped && s.ended[i] == 0 {
					s.bad("plan %d: %+v: cannot be stopped", i, *s.plans[i])
				}
				if x.Stop() {
					s.bad("plan %d: stopped twice", i)
				}
			})
		}
	}
	last := len(s.plans) - 1
	for i := range last {
		s.client.After(time.Duration(s.r.IntN(1000))*time.Millisecond, func() { connect(i) })
	}
	if err := s.sim.RunFor(time.Duration(s.r.Int64N(int64(time.Second) << s.r.IntN(8)))); err != nil {
		s.bad("with faults: %v", err)
	}
	s.healed = true
	s.sim.HealAll()
	if err := s.sim.Run(nil); err != nil {
		s.bad("healed: %v (G9, G10)", err)
	}
	for i := range last {
		if s.ended[i] != 1 {
			s.bad("plan %d: %+v: the connect ended %d times (G1)", i, *s.plans[i], s.ended[i])
		}
	}
	ok := s.ok
	s.client.Soon(func() { connect(last) })
	if err := s.sim.Run(nil); err != nil || s.ok != ok+1 {
		s.bad("after the faults there is no connection: %v (G10)", err)
	}
	if n := len(s.open); n != 0 {
		s.bad("%d connections made and never lost (G1)", n)
	}
	// Each socket was closed, and the world would know of one closed twice (66).
	if u := here.Usage(); u != before || s.client.Connections() != 0 {
		s.bad("left over: %+v, %d connections (G6)", u, s.client.Connections())
	}
	for _, v := range s.sim.Violations() {
		s.bad("the contract of the backend: %s", v)
	}
	for _, f := range s.cleanups {
		f()
	}
	for _, err := range s.sim.Failures {
		var a *weir.AcceptError
		if !errors.As(err, &a) {
			s.bad("reported: %v", err)
		}
	}
	return s
}

// TestSeedsStages: every stage of a connect fails in every way, and is stopped at
// any moment, with and without other faults. Each connect ends once, at the stage
// that failed, with every address listed, and its sockets are closed once (R43,
// R44, behaviours 66, 69, 70; G1, G2, G6, G9, G10).
func TestSeedsStages(t *testing.T) {
	own, trust := rig.TLS(t)
	first, n := *simFirst, seedCount()
	if seed, ok := weirtest.Seed(); ok {
		first, n = seed, 1
	}
	ok, failed := 0, 0
	for seed := first; seed < first+n; seed++ {
		s := runStages(t, seed, own, trust)
		ok, failed = ok+s.ok, failed+s.failed
		if len(s.problems) > 0 {
			for _, p := range s.problems[:min(len(s.problems), 10)] {
				t.Error(p)
			}
			s.sim.ExplainTo(t)
			return
		}
	}
	t.Logf("%d seeds: %d connections, %d failures", n, ok, failed)
	if n > 50 && (ok < int(n) || failed < int(n)) {
		t.Errorf("%d connections and %d failures of %d seeds", ok, failed, n)
	}
}
