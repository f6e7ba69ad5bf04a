package utp_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/utp"
	"github.com/weir-io/weir/weirtest"
)

// ear is a protocol that notes what it hears.
type ear struct {
	t        weir.Transport
	made     int
	lost     int
	err      error
	failed   error
	got      []byte
	ends     int
	keepOpen bool
	send     []byte
	then     func(t weir.Transport) // after ConnectionMade
	onEnd    func(t weir.Transport)
}

func (e *ear) ConnectionMade(t weir.Transport) {
	e.t = t
	e.made++
	if len(e.send) > 0 {
		_, _ = t.Write(e.send)
	}
	if e.then != nil {
		e.then(t)
	}
}

func (e *ear) DataReceived(p []byte) (int, error) {
	e.got = append(e.got, p...)
	return len(p), nil
}

func (e *ear) EOFReceived(int) (bool, error) {
	e.ends++
	if e.onEnd != nil {
		e.onEnd(e.t)
	}
	return e.keepOpen, nil
}

func (e *ear) ConnectionLost(err error)             { e.lost++; e.err = err }
func (e *ear) ConnectFailed(err *weir.ConnectError) { e.failed = err }
func (e *ear) over() bool                           { return e.lost > 0 || e.failed != nil }

// noise is n bytes that tell their position.
func noise(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p)
	return p
}

// world is two hosts with an endpoint each.
type world struct {
	*weirtest.Sim
	a, b *utp.Endpoint // b dials a
	to   netip.AddrPort
}

const aPort = 7000

func newWorld(t *testing.T, s *weirtest.Sim, cfg utp.Config) *world {
	t.Helper()
	w := &world{Sim: s, to: netip.MustParseAddrPort(s.Host("a").Addr(aPort))}
	open := func(host, address string, n uint64) *utp.Endpoint {
		c := cfg
		c.Random = chance(s.Seed()*10 + n)
		e, err := utp.Open(s.Host(host).Loop(), "udp4", address, c)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	w.a = open("a", w.to.String(), 1)
	w.b = open("b", s.Host("b").Addr(8000), 2)
	return w
}

func (w *world) listen(t *testing.T, f weir.Factory) *utp.Listener {
	t.Helper()
	ln, err := w.a.Listen(f)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// atRest checks that nothing stays (G6).
func (w *world) atRest(t *testing.T) {
	t.Helper()
	atRest(t, w.a, w.b)
}

func atRest(t *testing.T, ends ...*utp.Endpoint) {
	t.Helper()
	for i, e := range ends {
		if e.Connections() != 0 || e.Memory() != 0 {
			t.Errorf("endpoint %d: %d connections and %d bytes stayed", i, e.Connections(), e.Memory())
		}
	}
}

var (
	seeds     = flag.Uint64("utp.seeds", 300, "how many worlds TestSeeds runs")
	firstSeed = flag.Uint64("utp.first", 1, "the seed of the first of them")
)

// gate is a layer for datagrams that can be shut in one direction.
type gate struct {
	packet.Base
	in, out bool // shut
}

func (g *gate) PacketReceived(p []byte, from weir.PacketAddr) {
	if !g.in {
		g.Base.PacketReceived(p, from)
	}
}

func (g *gate) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	if g.out {
		return true, nil
	}
	return g.Base.SendTo(p, to)
}

// death draws, for one seed of four, a direction that dies for good at some moment.
func death(s *weirtest.Sim, seed uint64, g *gate) bool {
	r := rand.New(rand.NewPCG(seed, 2))
	if r.IntN(4) > 0 {
		return false
	}
	shut := &g.in
	if r.IntN(2) == 0 {
		shut = &g.out
	}
	s.Host("b").Loop().After(time.Duration(r.ExpFloat64()*float64(time.Second)), func() { *shut = true })
	return true
}

// TestSeeds: connections over datagrams that are lost, doubled, reordered and late, as
// each seed draws it, and of which those of one direction may all be lost from some
// moment on. Every byte arrives in order (G2), but for the last ones in that case,
// callbacks come as they should (G1, G3, G4), all ends in bounded time (G10) and nothing
// stays (G6).
func TestSeeds(t *testing.T) {
	if race.Enabled {
		t.Skip("a simulated world has no races")
	}
	first, n := *firstSeed, *seeds
	if asked, ok := weirtest.Seed(); ok {
		first, n = asked, 1
	}
	for seed := first; seed < first+n; seed++ {
		if !t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { oneSeed(t, seed) }) {
			return
		}
	}
}

func oneSeed(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	some := func(most float64) float64 {
		if r.IntN(2) == 0 {
			return 0
		}
		return r.Float64() * most
	}
	f := weirtest.Faults{
		Drop: some(0.15), Duplicate: some(0.3), Reorder: some(0.1), SendNoBuffer: some(0.05), SendWait: some(0.05),
		Jitter: time.Duration(some(float64(50 * time.Millisecond))), Latency: time.Millisecond + time.Duration(some(float64(150*time.Millisecond))),
		Defer: some(0.3), EarlyEnd: some(0.3), Again: some(0.2), LateCancel: some(0.5), Shuffle: r.IntN(2) == 0,
	}
	if j := rand.New(rand.NewPCG(seed, 2)); j.IntN(2) == 0 {
		f.Joined = j.Float64()
	}
	s := weirtest.NewSim(t, seed, weirtest.WithFaults(f))
	w := newWorld(t, s, utp.Config{Nagle: r.IntN(4) == 0, ReceiveWindow: 4096 << r.IntN(8), Timeout: 10 * time.Minute, ConnectTimeout: 5 * time.Minute})
	inv := weirtest.NewInvariants(func(problem string) { t.Error(problem) })
	var all []*ear
	var servers []*ear
	w.listen(t, inv.Factory(func(weir.Transport) weir.Protocol {
		e := &ear{send: noise(r.IntN(200_000)), keepOpen: r.IntN(2) == 0}
		e.then = func(t weir.Transport) {
			if e.keepOpen {
				_ = t.WriteEOF()
			}
		}
		servers = append(servers, e)
		return e
	}))
	ends := []*utp.Endpoint{w.a, w.b}
	shut := &gate{}
	dead := death(s, seed, shut)
	for i := range 1 + r.IntN(4) {
		// The invariants tell connections apart by their addresses.
		from, err := utp.NewEndpoint(utp.Config{Random: chance(seed*100 + uint64(i)), Timeout: 10 * time.Minute, ConnectTimeout: 5 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		g := &gate{}
		if i == 0 {
			g = shut
		}
		if _, err := packet.Listen(s.Host("b").Loop(), "udp4", s.Host("b").Addr(uint16(9000+i)), from, []packet.Layer{func(*weir.Loop) packet.Ends { return g }}); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, from)
		e := &ear{send: noise(1 + r.IntN(200_000)), keepOpen: true}
		e.then = func(t weir.Transport) { _ = t.WriteEOF() }
		all = append(all, e)
		s.Host("b").Loop().Soon(func() { from.Dial(w.to, inv.Protocol(e)) })
	}
	over := func() bool {
		for _, e := range append(all, servers...) {
			if !e.over() {
				return false
			}
		}
		return true
	}
	for s.Now() < 6*time.Hour && !over() && s.Step() {
		inv.Step()
	}
	if !over() {
		t.Errorf("not over after %v", s.Now())
	}
	byPort := map[uint16]*ear{} // the server's end of each client
	for _, e := range servers {
		byPort[e.t.RemoteAddr().(utp.Addr).AddrPort().Port()] = e
	}
	for i, e := range all {
		server := byPort[uint16(9000+i)]
		switch {
		case dead && i == 0:
			checkDead(t, e, server)
		case e.failed != nil || e.err != nil || server == nil || server.err != nil:
			t.Errorf("client %d of %d bytes: %v %v, server %+v", i, len(e.send), e.failed, e.err, server)
		case !bytes.Equal(server.got, e.send) || !bytes.Equal(e.got, server.send):
			t.Errorf("client %d: %d of %d bytes arrived, and %d of %d back", i, len(server.got), len(e.send), len(e.got), len(server.send))
		}
	}
	if err := s.RunFor(5 * time.Minute); err != nil {
		t.Error(err)
	}
	atRest(t, ends...)
}

// checkDead checks the ends of a connection one of whose directions has died: each got
// the beginning of what was sent, and was lost for a reason that says so.
func checkDead(t *testing.T, client, server *ear) {
	t.Helper()
	for _, e := range []*ear{client, server} {
		if e == nil || e.made == 0 {
			continue // it was not connected
		}
		known := e.err == nil
		for _, err := range []error{syscall.ETIMEDOUT, syscall.ECONNRESET, utp.ErrSilent} {
			known = known || errors.Is(e.err, err)
		}
		if !known || !bytes.Equal(e.got, noise(200_000)[:len(e.got)]) {
			t.Errorf("got %d bytes, lost with %v", len(e.got), e.err)
		}
	}
	if client.failed != nil && !errors.Is(client.failed, syscall.ETIMEDOUT) {
		t.Error("failed with", client.failed)
	}
}

// TestTLS: TLS over uTP over datagrams that are lost, doubled and reordered.
func TestTLS(t *testing.T) {
	if race.Enabled {
		t.Skip("a simulated world has no races")
	}
	weirtest.Seeds(t, 10, func(t *testing.T, s *weirtest.Sim) {
		serverTLS, clientTLS := s.TLS(t)
		w := newWorld(t, s, utp.Config{})
		server := &ear{send: noise(300_000)}
		w.listen(t, layer.Server(func(weir.Transport) weir.Protocol { return server }, layer.TLSServer(serverTLS)))
		client := &ear{send: noise(100_000), keepOpen: true, then: func(t weir.Transport) { _ = t.WriteEOF() }}
		w.b.Dial(w.to, layer.Client(client, layer.TLS(clientTLS)))
		s.Until("both ends lost", func() bool { return client.over() && server.over() })
		if client.err != nil || server.err != nil || client.failed != nil {
			t.Error(client.err, server.err, client.failed)
		}
		if !bytes.Equal(client.got, noise(300_000)) || !bytes.Equal(server.got, noise(100_000)) {
			t.Errorf("client got %d bytes, server %d", len(client.got), len(server.got))
		}
	}, weirtest.WithFaults(weirtest.Faults{Drop: 0.05, Duplicate: 0.1, Reorder: 0.03, Latency: 20 * time.Millisecond}))
}

// TestLayersBelow: TLS over uTP over a layer that loses, doubles, delays and reorders
// datagrams, and one that counts them, which the endpoint stands on like on a socket.
func TestLayersBelow(t *testing.T) {
	if race.Enabled {
		t.Skip("a simulated world has no races")
	}
	weirtest.Seeds(t, 10, func(t *testing.T, s *weirtest.Sim) {
		serverTLS, clientTLS := s.TLS(t)
		var counts packet.Counts
		bad := packet.Faults{Loss: 0.03, Duplicate: 0.05, Reorder: 0.05, Latency: 10 * time.Millisecond, Jitter: 3 * time.Millisecond}
		open := func(host string, port uint16, n uint64) *utp.Endpoint {
			e, err := utp.NewEndpoint(utp.Config{Random: chance(s.Seed()*10 + n)})
			if err != nil {
				t.Fatal(err)
			}
			layers := []packet.Layer{packet.Fault(packet.FaultConfig{In: bad, Out: bad, Seed: s.Seed(), Counts: &counts})}
			if _, err := packet.Listen(s.Host(host).Loop(), "udp4", s.Host(host).Addr(port), e, layers); err != nil {
				t.Fatal(err)
			}
			return e
		}
		a, b := open("a", aPort, 1), open("b", 8000, 2)
		_ = s.RunFor(time.Millisecond)
		server := &ear{send: noise(300_000)}
		if _, err := a.Listen(layer.Server(func(weir.Transport) weir.Protocol { return server }, layer.TLSServer(serverTLS))); err != nil {
			t.Fatal(err)
		}
		client := &ear{send: noise(100_000), keepOpen: true, then: func(t weir.Transport) { _ = t.WriteEOF() }}
		b.Dial(netip.MustParseAddrPort(s.Host("a").Addr(aPort)), layer.Client(client, layer.TLS(clientTLS)))
		s.Until("both ends lost", func() bool { return client.over() && server.over() })
		if client.err != nil || server.err != nil || client.failed != nil {
			t.Error(client.err, server.err, client.failed)
		}
		if !bytes.Equal(client.got, noise(300_000)) || !bytes.Equal(server.got, noise(100_000)) {
			t.Errorf("client got %d bytes, server %d", len(client.got), len(server.got))
		}
		if counts.Lost.Load() == 0 || counts.Reordered.Load() == 0 {
			t.Errorf("the layers did %v", &counts)
		}
		_ = s.RunFor(5 * time.Minute)
		atRest(t, a, b)
	})
}

// TestOneWayDeath: a peer that vanishes, or that one direction no longer reaches, is given
// up after Config.Timeout, and by a connection with nothing to send after its keep-alives.
func TestOneWayDeath(t *testing.T) {
	for _, way := range []string{"there", "back", "both"} {
		for _, busy := range []bool{true, false} {
			t.Run(fmt.Sprint(way, ", busy ", busy), func(t *testing.T) { oneWayDeath(t, way, busy) })
		}
	}
}

func oneWayDeath(t *testing.T, way string, busy bool) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{})
	server := &ear{}
	w.listen(t, func(weir.Transport) weir.Protocol { return server })
	from, err := utp.NewEndpoint(utp.Config{Random: chance(3)})
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{}
	if _, err := packet.Listen(s.Host("b").Loop(), "udp4", s.Host("b").Addr(9000), from, []packet.Layer{func(*weir.Loop) packet.Ends { return g }}); err != nil {
		t.Fatal(err)
	}
	client := &ear{}
	s.Host("b").Loop().Soon(func() { from.Dial(w.to, client) })
	s.Until("both ends connected", func() bool { return client.made+server.made == 2 })
	g.out, g.in = way != "back", way != "there"
	if busy {
		client.t.Loop().Soon(func() { _, _ = client.t.Write([]byte("hello")) })
	}
	begin := s.Now()
	s.Until("the client lost", func() bool { return client.lost == 1 })
	took := s.Now() - begin
	s.Until("the server lost", func() bool { return server.lost == 1 })
	later := s.Now() - begin
	// Whoever still hears the other asks first once that has given up.
	if took < 29*time.Second || busy && took > 31*time.Second || later > 91*time.Second {
		t.Errorf("lost after %v and %v", took, later)
	}
	if !errors.Is(client.err, syscall.ETIMEDOUT) || !errors.Is(server.err, syscall.ETIMEDOUT) {
		t.Error("lost with", client.err, "and", server.err)
	}
	_ = s.RunFor(time.Minute)
	atRest(t, w.a, from)
}

// TestKeepAlive: an idle connection stays.
func TestKeepAlive(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{})
	server := &ear{}
	w.listen(t, func(weir.Transport) weir.Protocol { return server })
	client := &ear{}
	w.b.Dial(w.to, client)
	s.Until("both ends connected", func() bool { return client.made+server.made == 2 })
	if err := s.RunFor(24 * time.Hour); err != nil {
		t.Fatal(err)
	}
	if client.lost+server.lost > 0 {
		t.Error("lost while idle:", client.err, server.err)
	}
}

// TestHalfClose: the end comes after what was written, reading goes on, and a peer that
// then says nothing is waited for as long as the configuration says and no longer.
func TestHalfClose(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{HalfClose: 20 * time.Minute})
	server := &ear{keepOpen: true}
	w.listen(t, func(weir.Transport) weir.Protocol { return server })
	client := &ear{keepOpen: true, send: noise(100_000), then: func(t weir.Transport) { _ = t.WriteEOF() }}
	w.b.Dial(w.to, client)
	s.Until("the end", func() bool { return server.ends == 1 })
	if !bytes.Equal(server.got, client.send) {
		t.Errorf("the server had %d bytes at the end", len(server.got))
	}
	_ = s.RunFor(19 * time.Minute)
	server.t.Loop().Soon(func() { _, _ = server.t.Write([]byte("still here")) })
	s.Until("what came later", func() bool { return string(client.got) == "still here" })
	begin := s.Now()
	s.Until("the client lost", func() bool { return client.lost == 1 })
	if took := s.Now() - begin; !errors.Is(client.err, utp.ErrSilent) || took < 20*time.Minute || took > 21*time.Minute {
		t.Errorf("lost after %v with %v", took, client.err)
	}
	s.Until("the server lost", func() bool { return server.lost == 1 })
	if !errors.Is(server.err, syscall.ECONNRESET) {
		t.Errorf("the server was lost with %v", server.err)
	}
}

// TestRefused: what no one listens for is refused, whether by a reset or by ICMP; an
// established connection survives ICMP.
func TestRefused(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{})
	byReset, byICMP := &ear{}, &ear{}
	w.b.Dial(w.to, byReset) // an endpoint without a listener
	w.b.Dial(netip.AddrPortFrom(w.to.Addr(), 9), byICMP)
	s.Until("both refused", func() bool { return byReset.failed != nil && byICMP.failed != nil })
	if !errors.Is(byReset.failed, syscall.ECONNREFUSED) || !errors.Is(byICMP.failed, syscall.ECONNREFUSED) {
		t.Error(byReset.failed, byICMP.failed)
	}
	if s.Now() > time.Second {
		t.Errorf("refused after %v", s.Now())
	}

	server := &ear{}
	w.listen(t, func(weir.Transport) weir.Protocol { return server })
	client := &ear{}
	w.b.Dial(w.to, client)
	s.Until("both ends connected", func() bool { return client.made+server.made == 2 })
	for _, errno := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EMSGSIZE, syscall.EPROTO} {
		w.b.PacketFailed(errno, weir.PacketAddr{IP: w.to})
	}
	client.t.Loop().Soon(func() { _, _ = client.t.Write([]byte("hello")) })
	s.Until("bytes after ICMP", func() bool { return string(server.got) == "hello" })
	if client.lost > 0 {
		t.Error("ICMP ended an established connection:", client.err)
	}
	// A peer that refuses and stays silent is given up after a few timeouts.
	s.Host("a").Loop().Soon(w.a.Packets().Abort)
	s.Until("the server lost", func() bool { return server.lost == 1 })
	begin := s.Now()
	client.t.Loop().Soon(func() { _, _ = client.t.Write([]byte("hello")) })
	s.Until("the client lost", func() bool { return client.lost == 1 })
	if !errors.Is(client.err, syscall.ECONNREFUSED) || s.Now()-begin > 15*time.Second {
		t.Errorf("lost after %v with %v", s.Now()-begin, client.err)
	}
}

// TestOther: datagrams of another protocol on the same port go to their handler.
func TestOther(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	var got []string
	var e *utp.Endpoint
	e, err := utp.Open(s.Host("a").Loop(), "udp4", s.Host("a").Addr(aPort), utp.Config{
		Random: chance(1),
		Other: func(p []byte, from weir.PacketAddr) {
			got = append(got, string(p))
			_ = e.SendTo([]byte("pong"), from)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := ""
	pe, err := s.Host("b").Loop().ListenPacket("udp4", "0.0.0.0:0", weir.PacketFunc(func(_ *weir.PacketEndpoint, p []byte, _ weir.PacketAddr) {
		answer = string(p)
	}).Protocol())
	if err != nil {
		t.Fatal(err)
	}
	_ = pe.SendTo([]byte("d4:ping"), weir.PacketAddr{IP: netip.MustParseAddrPort(s.Host("a").Addr(aPort))})
	s.Until("the answer", func() bool { return answer != "" })
	if len(got) != 1 || got[0] != "d4:ping" || answer != "pong" {
		t.Errorf("heard %q, answered %q", got, answer)
	}
}

// TestShutWindow: a reader that pauses shuts the window, and nothing is lost when the
// acknowledgement that opens it is.
func TestShutWindow(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{ReceiveWindow: 20_000})
	server := &ear{then: func(t weir.Transport) { t.PauseReading() }}
	w.listen(t, func(weir.Transport) weir.Protocol { return server })
	client := &ear{send: noise(400_000), then: func(t weir.Transport) { _ = t.WriteEOF() }, keepOpen: true}
	w.b.Dial(w.to, client)
	_ = s.RunFor(10 * time.Minute)
	if client.lost+server.lost > 0 {
		t.Fatal("lost while the window was shut:", client.err, server.err)
	}
	if m := w.a.Memory(); m > 25_000 {
		t.Errorf("the reader's endpoint keeps %d bytes for a window of 20,000", m)
	}
	s.Partition(s.Host("a"), s.Host("b"))
	s.Host("a").Loop().Soon(server.t.ResumeReading)
	_ = s.RunFor(time.Second) // the acknowledgement is lost
	s.HealAll()
	s.Until("everything", func() bool { return server.over() })
	if !bytes.Equal(server.got, client.send) {
		t.Errorf("got %d bytes", len(server.got))
	}
}

// TestLastAcks: a peer that misses the acknowledgements of its end, for longer than its
// first timeouts, still gets one (G10).
func TestLastAcks(t *testing.T) {
	for _, cut := range []time.Duration{8 * time.Second, 40 * time.Second} {
		s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{Latency: 10 * time.Millisecond}))
		w := newWorld(t, s, utp.Config{Timeout: 10 * time.Minute})
		server := &ear{}
		w.listen(t, func(weir.Transport) weir.Protocol { return server })
		client := &ear{keepOpen: true, send: []byte("hello")}
		w.b.Dial(w.to, client)
		s.Until("hello", func() bool { return string(server.got) == "hello" })
		server.t.Loop().Soon(func() { _ = server.t.WriteEOF() })
		s.Until("the server's end", func() bool { return client.ends == 1 })
		_ = s.RunFor(time.Second)
		server.onEnd = func(weir.Transport) { s.Partition(s.Host("a"), s.Host("b")) }
		client.t.Loop().Soon(func() { _, _ = client.t.Write([]byte(" again")); client.t.Close() })
		s.Until("the client's end", func() bool { return server.lost == 1 })
		_ = s.RunFor(cut)
		if client.lost > 0 {
			t.Fatal("the client was lost before:", client.err)
		}
		s.HealAll()
		s.Until("the client lost", client.over)
		if client.err != nil || server.err != nil {
			t.Errorf("cut for %v: the client was lost with %v, the server with %v", cut, client.err, server.err)
		}
		_ = s.RunFor(5 * time.Minute)
		w.atRest(t)
	}
}

// TestDialer: connections of one Dialer share a port while there are any, and the one
// after them gets a new one; each has the Config of its own connect.
func TestDialer(t *testing.T) {
	s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{Latency: 10 * time.Millisecond}))
	w := newWorld(t, s, utp.Config{PerAddress: 10})
	var servers []*ear
	w.listen(t, func(weir.Transport) weir.Protocol {
		servers = append(servers, &ear{keepOpen: true})
		return servers[len(servers)-1]
	})
	d := utp.NewDialer(s.Host("c").Loop())
	cfg := utp.Config{Random: chance(3)}
	var clients []*ear
	connect := func(n int, cfg utp.Config) {
		t.Helper()
		before := len(servers)
		for range n {
			c := &ear{send: []byte("hello")}
			clients = append(clients, c)
			d.Connect("udp", w.to.String(), c, cfg)
		}
		s.Until("the connections", func() bool { return len(servers) == before+n })
	}
	port := func(e *ear) string { return e.t.RemoteAddr().String() }
	connect(8, cfg)
	hasty := cfg
	hasty.Timeout = 2 * time.Second
	connect(1, hasty)
	for _, e := range servers {
		if port(e) != port(servers[0]) {
			t.Errorf("ports %s and %s", port(servers[0]), port(e))
		}
	}
	// Lingering connections do not count towards the bounds of those that are open.
	for _, c := range clients[:8] {
		c.t.Loop().Soon(func() { c.t.Close() })
	}
	s.Until("the ends", func() bool { return servers[7].ends == 1 })
	for _, e := range servers[:8] {
		e.t.Loop().Soon(func() { e.t.Close() })
	}
	_ = s.RunFor(time.Second)
	connect(8, cfg)
	if port(servers[16]) != port(servers[0]) {
		t.Error("another port while there was a connection")
	}
	s.Partition(s.Host("a"), s.Host("c"))
	for _, c := range clients[8:] {
		c.t.Loop().Soon(func() { _, _ = c.t.Write([]byte("more")) })
	}
	_ = s.RunFor(5 * time.Second)
	if clients[8].lost != 1 || clients[9].lost != 0 {
		t.Errorf("with a Timeout of 2 s it was lost %d times, with 30 s %d times", clients[8].lost, clients[9].lost)
	}
	_ = s.RunFor(10 * time.Minute)
	s.HealAll()
	connect(1, cfg)
	if last := servers[len(servers)-1]; port(last) == port(servers[0]) {
		t.Error("the same port after all had ended")
	}
}

// TestMemoryShared: connections whose readers take nothing keep no more than
// Config.Memory, even if their peers ignore the window, and leave room for others.
func TestMemoryShared(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	const memory = 400_000
	w := newWorld(t, s, utp.Config{Memory: memory, ReceiveWindow: 100_000, KeepAlive: -1})
	var last *ear
	w.listen(t, func(weir.Transport) weir.Protocol {
		last = &ear{then: func(t weir.Transport) { t.PauseReading() }}
		return last
	})
	for conn := range uint16(30) {
		h := newPeer(t, s, w.to)
		h.send(wire(wSyn, 100*conn, 1<<20, 1, 0))
		s.Until("the answer", func() bool { return len(h.got) > 0 })
		seq, _ := h.last()
		for i := range uint16(100) {
			h.send(wire(wData, 100*conn+1, 1<<20, 2+i, seq-1, noise(1000)...))
		}
		_ = s.RunFor(100 * time.Millisecond)
		if m := w.a.Memory(); m > memory+6000*(int(conn)+1) {
			t.Fatalf("the endpoint keeps %d bytes", m)
		}
	}
	client := &ear{send: noise(200_000)}
	w.b.Dial(w.to, client)
	s.Until("the other connected", func() bool { return client.made == 1 })
	_ = s.RunFor(time.Second)
	last.t.Loop().Soon(last.t.ResumeReading)
	begin := s.Now()
	s.Until("all of the other's", func() bool { return len(last.got) == 200_000 })
	if took := s.Now() - begin; took > 30*time.Second {
		t.Errorf("the other took %v", took)
	}
}
