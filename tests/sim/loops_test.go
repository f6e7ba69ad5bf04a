package sim

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/sim"
	"github.com/weir-io/weir/internal/race"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed only, and print its trace")
	simFirst = flag.Uint64("sim.first", 1, "the first of them")
	simSeeds = flag.Uint64("sim.seeds", 0, "how many seeds to run; 0: 300 of each test, a tenth of that with the race detector")
)

// seedCount is how many seeds a test of the simulator runs.
func seedCount() uint64 {
	switch {
	case *simSeeds > 0:
		return *simSeeds
	case race.Enabled || testing.Short():
		return 30
	}
	return 300
}

// simRun is one seed: a server and a client, echoing under faults.
type simRun struct {
	t       *testing.T
	w       *sim.World
	r       *rand.Rand
	client  *weir.Loop
	server  *weir.Loop
	ln      *weir.Listener
	clients []*simClient
	network string
	listen  string
	made    int // connections of the current server
	lost    int
	crashes int
	wrap    func(*sim.Backend) backend.Backend // plants a bug, if set
	quits   int                                // servers whose end may reach the client before their bytes do
	calls   bytes.Buffer                       // every callback, for the comparison of two runs
	errs    []string
}

func (s *simRun) bad(format string, args ...any) {
	s.errs = append(s.errs, fmt.Sprintf("%v: ", s.w.Now())+fmt.Sprintf(format, args...))
}

func (s *simRun) loop(h *sim.Host) *weir.Loop {
	b, err := h.Backend()
	if err != nil {
		s.t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	be := backend.Backend(b)
	if s.wrap != nil {
		be = s.wrap(b)
	}
	l, err := weir.NewLoop(weir.WithBackend(be), weir.WithLogger(quiet))
	if err != nil {
		s.t.Fatal(err)
	}
	b.Drive(l)
	return l
}

// simServer echoes, and may misbehave.
type simServer struct {
	s    *simRun
	t    weir.Transport
	n    int
	quit int // closes or aborts after this many bytes; 0: never
	how  int
	made int
	lost int
}

func (p *simServer) ConnectionMade(t weir.Transport) {
	p.t = t
	if p.made++; p.made > 1 {
		p.s.bad("server: ConnectionMade twice")
	}
	p.s.made++
}

func (p *simServer) DataReceived(b []byte) (int, error) {
	if p.lost > 0 || p.made == 0 {
		p.s.bad("server: data outside of its connection")
	}
	for i, c := range b {
		if c != byte((p.n+i)*7) {
			p.s.bad("server: byte %d is %d, want %d (G2)", p.n+i, c, byte((p.n+i)*7))
			return 0, io.ErrUnexpectedEOF
		}
	}
	fmt.Fprintf(&p.s.calls, "%d server data %d\n", p.s.w.Now(), len(b))
	p.n += len(b)
	if p.quit > 0 && p.n >= p.quit {
		p.s.quits++
		switch p.how {
		case 0:
			p.t.Close()
		case 1:
			p.t.Abort()
		case 2:
			p.t.PauseReading()
			p.t.Loop().After(time.Second, p.t.ResumeReading)
			p.quit = 0
		default:
			return 0, io.ErrShortBuffer
		}
	}
	_, _ = p.t.Write(b) // the reason of a failure comes with ConnectionLost
	return len(b), nil
}

func (p *simServer) ConnectionLost(err error) {
	fmt.Fprintf(&p.s.calls, "%d server lost %v\n", p.s.w.Now(), err)
	if p.lost++; p.lost > 1 || p.made == 0 {
		p.s.bad("server: ConnectionLost %d times, made %d (G1)", p.lost, p.made)
	}
	if err != nil && p.s.network == "unix" {
		p.s.quits++ // UNIX sockets have no reset: the client sees a plain end
	}
	p.s.lost++
}

// simClient sends total bytes, and closes when all of them are back.
type simClient struct {
	s      *simRun
	t      weir.Transport
	c      *weir.Connector
	total  int
	sent   int
	got    int
	eof    bool // half-closes when everything is sent
	abort  time.Duration
	paused bool
	pauses int
	made   int
	lost   int
	failed int
	reason error
}

func (p *simClient) ConnectionMade(t weir.Transport) {
	p.t = t
	if p.made++; p.made > 1 || p.failed > 0 {
		p.s.bad("client: ConnectionMade %d times, failed %d", p.made, p.failed)
	}
	fmt.Fprintf(&p.s.calls, "%d client made %v\n", p.s.w.Now(), t.LocalAddr())
	if p.abort > 0 {
		t.Loop().After(p.abort, t.Abort)
	}
	// No one waits forever for a peer that fell silent.
	t.Loop().After(time.Hour, t.Abort)
	p.more()
}

func (p *simClient) more() {
	for p.sent < p.total && !p.paused && p.lost == 0 {
		n := min(1+p.s.r.IntN(40_000), p.total-p.sent)
		b := make([]byte, n)
		for i := range b {
			b[i] = byte((p.sent + i) * 7)
		}
		p.sent += n
		if _, err := p.t.Write(b); err != nil {
			return
		}
	}
	if p.sent == p.total && p.eof {
		p.eof = false
		_ = p.t.WriteEOF()
	}
}

func (p *simClient) PauseWriting() {
	if p.pauses++; p.paused {
		p.s.bad("client: paused twice (G4)")
	}
	p.paused = true
}

func (p *simClient) ResumeWriting() {
	if !p.paused {
		p.s.bad("client: resumed without a pause (G4)")
	}
	p.paused = false
	p.more()
}

func (p *simClient) DataReceived(b []byte) (int, error) {
	if p.lost > 0 || p.made == 0 {
		p.s.bad("client: data outside of its connection (G1)")
	}
	n := len(b)
	if n > 3 && p.s.r.IntN(3) == 0 {
		n = 1 + p.s.r.IntN(n) // the rest is offered again
	}
	for i, c := range b[:n] {
		if c != byte((p.got+i)*7) {
			p.s.bad("client: byte %d is %d, want %d (G2)", p.got+i, c, byte((p.got+i)*7))
			return 0, io.ErrUnexpectedEOF
		}
	}
	p.got += n
	if p.got > p.sent {
		p.s.bad("client: got %d bytes of %d sent (G2)", p.got, p.sent)
	}
	if p.got == p.total {
		p.t.Close()
	}
	return n, nil
}

func (p *simClient) ConnectionLost(err error) {
	fmt.Fprintf(&p.s.calls, "%d client lost %v after %d of %d\n", p.s.w.Now(), err, p.got, p.total)
	if p.lost++; p.lost > 1 || p.made == 0 {
		p.s.bad("client: ConnectionLost %d times, made %d (G1)", p.lost, p.made)
	}
	p.reason = err
}

func (p *simClient) ConnectFailed(err *weir.ConnectError) {
	fmt.Fprintf(&p.s.calls, "%d client failed %v\n", p.s.w.Now(), err)
	if p.failed++; p.failed > 1 || p.made > 0 {
		p.s.bad("client: ConnectFailed %d times, made %d", p.failed, p.made)
	}
}

// serve starts the server, and again after a crash of its host.
func (s *simRun) serve(h *sim.Host) {
	s.server = s.loop(h)
	s.made, s.lost = 0, 0
	era := s.crashes
	var err error
	for range 200 {
		s.ln, err = s.server.Listen(s.network, s.listen, func(weir.Transport) weir.Protocol {
			if era != s.crashes {
				s.bad("server: a connection of a crashed loop")
			}
			p := &simServer{s: s}
			if s.r.IntN(4) == 0 {
				p.quit, p.how = 1+s.r.IntN(50_000), s.r.IntN(4)
			}
			return p
		})
		if err == nil {
			return
		}
	}
	s.t.Fatal(err)
}

// simEcho runs one seed.
func simEcho(t *testing.T, seed uint64, cfg sim.Config) *simRun {
	return simEchoOn(t, seed, cfg, nil)
}

func simEchoOn(t *testing.T, seed uint64, cfg sim.Config, wrap func(*sim.Backend) backend.Backend) *simRun {
	cfg.Swarm = true
	w := sim.New(seed, cfg)
	s := &simRun{t: t, w: w, r: rand.New(rand.NewPCG(seed, 1)), network: "tcp", listen: ":7000", wrap: wrap}
	hs, hc := w.Host("s"), w.Host("c")
	to := fmt.Sprintf("[%v]:7000", w.Lookup("s")[s.r.IntN(2)])
	switch s.r.IntN(8) {
	case 0:
		s.network, s.listen, to, hc = "unix", "@echo", "@echo", hs
	case 1:
		to, hc = "127.0.0.1:7000", hs
	case 2, 3:
		hs.OnCrash = func(h *sim.Host) {
			s.crashes++
			s.serve(h)
		}
	}
	s.serve(hs)
	s.client = s.loop(hc)
	for range 1 + s.r.IntN(8) {
		p := &simClient{s: s, total: 1 + s.r.IntN(1<<(4+s.r.IntN(15))), eof: s.r.IntN(3) == 0}
		if s.r.IntN(8) == 0 {
			p.abort = time.Duration(1 + s.r.IntN(int(5*time.Second)))
		}
		s.clients = append(s.clients, p)
		s.client.After(time.Duration(s.r.IntN(int(time.Second))), func() {
			p.c = s.client.Connect(s.network, to, p)
		})
	}
	if err := w.RunFor(time.Duration(s.r.IntN(int(time.Second) << s.r.IntN(12)))); err != nil {
		s.bad("safety: %v", err)
	}
	w.HealAll()
	if err := w.Run(nil); err != nil {
		s.bad("liveness: %v", err)
	}
	for i, p := range s.clients {
		if p.made+p.failed != 1 || p.made != p.lost {
			s.bad("client %d: made %d, failed %d, lost %d, got %d of %d, sent %d, at rest (G10)", i, p.made, p.failed, p.lost, p.got, p.total, p.sent)
		}
	}
	for i, p := range s.clients {
		if p.made == 1 && p.reason == nil && s.quits == 0 && p.got != p.total {
			s.bad("client %d: a clean end after %d of %d bytes (G2)", i, p.got, p.total)
		}
	}
	s.ln.Close()
	if err := w.Run(nil); err != nil {
		s.bad("end: %v", err)
	}
	// A peer whose reset was lost, or that crashed, leaves behind a server that
	// waits forever: nothing tells it.
	if n := s.server.Connections(); n != s.made-s.lost {
		s.bad("server: %d connections, made %d, lost %d", n, s.made, s.lost)
	}
	if n, want := w.Usage().Handles, s.server.Connections()+s.client.Connections(); n != want {
		s.bad("%d handles open for %d connections (G6)", n, want)
	}
	for _, l := range []*weir.Loop{s.server, s.client} {
		if err := l.Close(); err != nil {
			s.bad("close: %v", err)
		}
	}
	if s.made != s.lost {
		s.bad("server: made %d, lost %d (G1)", s.made, s.lost)
	}
	for w.Step() {
	}
	if u := w.Usage(); u != (sim.Usage{}) {
		s.bad("left over: %+v (G6)", u)
	}
	for _, v := range w.Violations() {
		s.bad("contract: %s", v)
	}
	return s
}

// TestSimEcho runs two loops on two hosts under drawn faults: R2, G1 to G4, G6
// and G10 hold for every seed.
func TestSimEcho(t *testing.T) {
	first, n := *simFirst, seedCount()
	cfg := sim.Config{}
	if *simSeed != 0 {
		first, n = *simSeed, 1
		cfg.Trace = &testWriter{t}
	}
	var total sim.Stats
	crashes, failed, clean, lost := 0, 0, 0, 0
	for seed := first; seed < first+n; seed++ {
		s := simEcho(t, seed, cfg)
		st := s.w.Stats()
		total.Events, total.Results, total.Turns, total.Bytes = total.Events+st.Events, total.Results+st.Results, total.Turns+st.Turns, total.Bytes+st.Bytes
		crashes += s.crashes
		for _, p := range s.clients {
			switch {
			case p.failed > 0:
				failed++
			case p.reason == nil:
				clean++
			default:
				lost++
			}
		}
		if len(s.errs) > 0 {
			t.Errorf("seed %d: go test -run '^TestSimEcho$' ./tests/sim -args -sim.seed=%d\nfaults %+v", seed, seed, sim.Draw(seed))
			for _, e := range s.errs {
				t.Errorf("    %s", e)
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d seeds, %+v; %d crashes; %d connections ended clean, %d otherwise, %d never were", n, total, crashes, clean, lost, failed)
	if n >= 100 && (crashes == 0 || failed == 0 || clean == 0 || lost == 0) {
		t.Error("the faults are too weak or too strong")
	}
}

// The same seed gives the same run, every callback at its moment, whatever
// GOMAXPROCS is (behaviour 94).
func TestSimSameSeed(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	hashes := map[uint64]uint64{}
	for seed := uint64(1); seed <= 20; seed++ {
		var runs [2]*simRun
		var traces [2]bytes.Buffer
		for i := range runs {
			runtime.GOMAXPROCS(i + 1)
			runs[i] = simEcho(t, seed, sim.Config{Trace: &traces[i]})
		}
		if !bytes.Equal(traces[0].Bytes(), traces[1].Bytes()) || runs[0].w.TraceHash() != runs[1].w.TraceHash() {
			t.Errorf("seed %d: traces of %d and %d bytes differ", seed, traces[0].Len(), traces[1].Len())
		}
		if !bytes.Equal(runs[0].calls.Bytes(), runs[1].calls.Bytes()) {
			t.Errorf("seed %d: callbacks differ:\n%s\n%s", seed, &runs[0].calls, &runs[1].calls)
		}
		if other, taken := hashes[runs[0].w.TraceHash()]; taken {
			t.Errorf("seeds %d and %d run alike", seed, other)
		}
		hashes[runs[0].w.TraceHash()] = seed
	}
}

// testWriter puts a trace into a test's log.
type testWriter struct{ t *testing.T }

func (w *testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimRight(p, "\n")))
	return len(p), nil
}
