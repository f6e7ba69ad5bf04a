package sim

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/tests/internal/rig"
	"github.com/weir-io/weir/weirtest"
)

// seedRun is one seed of one scenario: its world, what checks it, and what went
// wrong.
type seedRun struct {
	testing.TB // for what weirtest needs from a test; failures are collected
	sim        *weirtest.Sim
	v          *weirtest.Invariants
	r          *rand.Rand
	server     *weir.Loop
	client     *weir.Loop
	ln         *weir.Listener
	problems   []string
	failed     int // connects
	served     int // connections that reached the factory
	answered   int // datagrams
	cut        int // datagrams that came truncated
	refused    int // datagrams that failed
	tooLong    int // datagrams that a link did not take
	healed     bool
	cleanups   []func()
	ends       map[[2]string]*talker // by local and remote address
	// The layers under the talkers, if there are any.
	under      layer.Layer // of clients
	underServe layer.Layer
	finish     func() // what a scenario checks at rest
}

func (s *seedRun) bad(format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

func (s *seedRun) Cleanup(f func())             { s.cleanups = append(s.cleanups, f) }
func (s *seedRun) Errorf(f string, args ...any) { s.bad(f, args...) }
func (s *seedRun) Error(args ...any)            { s.bad("%s", fmt.Sprint(args...)) }
func (s *seedRun) Failed() bool                 { return false } // explained by the caller
func (s *seedRun) Log(args ...any)              {}
func (s *seedRun) Logf(f string, args ...any)   {}
func (s *seedRun) Helper()                      {}

// talker is a protocol of the scenarios. It sends size bytes in pieces as its
// marks allow, reads as fast as it likes, and ends in one of many ways.
type talker struct {
	s       *seedRun
	t       weir.Transport
	r       *rand.Rand
	size    int // bytes to send
	sent    int
	got     int
	paused  bool
	lazy    int // leaves bytes unused one time in this many; 0: never
	slow    int // pauses reading one time in this many
	end     int // what it does when everything is sent: see ends
	quits   int // aborts or closes after this many received bytes
	reply   func(p *talker, b []byte)
	onEnd   func(p *talker)
	timer   *weir.Timer
	resume  *weir.Timer
	lost    bool
	closed  bool
	backlog int  // what was still to be sent hours after the close; -1: not checked
	plain   bool // it has no PauseWriting

	accepted int // bytes that Write has taken
	futile   int // of them, those a minute after the peer had gone and the faults had ended
	futileAt time.Duration
	quit     bool // it closed or aborted by itself
	ended    bool // WriteEOF was accepted
	eof      bool // the peer's end has come
	gotAt    time.Duration
	reason   error
	lostAt   time.Duration
	asleep   bool // it neither read nor could write when it was lost
	onMade   func(p *talker)
	onWork   func(p *talker) bool // what it does when everything is sent; false: as end says
	failer   bool                 // it has WriteFailed
	told     bool                 // WriteFailed came
	held     bool                 // it reads nothing for hours
	mute     bool                 // what it writes goes nowhere
	late     func(p *talker)      // checks what is still open after hours
}

// protocol is p with the callbacks that it should have.
func (p *talker) protocol() weir.Protocol {
	switch {
	case p.plain:
		return plainTalker{p}
	case p.failer:
		return failTalker{p}
	}
	return p
}

// peer is the other end; nil if there never was one.
func (p *talker) peer() *talker {
	return p.s.ends[[2]string{p.t.RemoteAddr().String(), p.t.LocalAddr().String()}]
}

// write writes and counts.
func (p *talker) write(b []byte) error {
	n, err := p.t.Write(b)
	p.accepted += n
	if p.late != nil && p.s.healed {
		if q := p.peer(); q != nil && q.lost && p.s.sim.Now()-q.lostAt > time.Minute {
			if p.futile == 0 {
				p.futileAt = p.s.sim.Now()
			}
			p.futile += n
		}
	}
	return err
}

// endCame checks, hours after p was made, whether its end, and what it wrote
// before, has reached q.
func (p *talker) endCame(q *talker) {
	if p.ended && !p.mute && !p.lost && !q.lost && !q.eof && !q.held && !q.quit && p.s.healed && q.got == p.accepted && p.s.sim.Now()-q.gotAt > time.Hour {
		p.s.bad("%v to %v: the end was written hours ago and has not come; nothing was told (G2)", p.t.LocalAddr(), p.t.RemoteAddr())
	}
}

// failTalker is a talker with WriteFailed.
type failTalker struct{ *talker }

func (q failTalker) WriteFailed(error) {
	q.told = true
	q.t.ResumeReading()
}

// plainTalker is a talker without PauseWriting.
type plainTalker struct{ p *talker }

func (q plainTalker) ConnectionMade(t weir.Transport)    { q.p.ConnectionMade(t) }
func (q plainTalker) DataReceived(b []byte) (int, error) { return q.p.DataReceived(b) }
func (q plainTalker) EOFReceived(n int) (bool, error)    { return q.p.EOFReceived(n) }
func (q plainTalker) ConnectionLost(err error)           { q.p.ConnectionLost(err) }

// What a talker does when it has sent everything.
const (
	endNot = iota
	endHalf
	endClose
	endAbort
	ends
)

func (p *talker) ConnectionMade(t weir.Transport) {
	p.t = t
	p.s.ends[[2]string{t.LocalAddr().String(), t.RemoteAddr().String()}] = p
	// No one waits forever for a peer that fell silent.
	p.timer = t.Loop().After(3*time.Hour, func() {
		if p.closed && p.s.healed {
			// A byte a second is progress too, if the buffers are so small.
			if n := t.Buffered(); p.backlog < 0 || n < p.backlog {
				p.backlog = n
				p.timer.Set(time.Hour)
				return
			}
			p.s.bad("closed, and nothing moves for an hour (G10)")
		}
		if p.late != nil {
			p.late(p)
		}
		if q := p.peer(); q != nil {
			p.endCame(q)
			q.endCame(p)
		}
		p.quit = true
		t.Abort()
	})
	p.resume = t.Loop().NewTimer(t.ResumeReading)
	if p.r.IntN(3) == 0 {
		high := p.r.IntN(100_000)
		if err := t.SetWriteMarks(high, p.r.IntN(high+1)); err != nil {
			p.s.bad("SetWriteMarks: %v", err)
		}
	}
	if p.onMade != nil {
		p.onMade(p)
	}
	p.work()
}

func (p *talker) work() {
	for !p.paused && p.sent < p.size && !p.lost {
		n := min(p.size-p.sent, 1+p.r.IntN(20_000))
		b := make([]byte, n)
		for i := range b {
			b[i] = rig.Pattern(p.sent + i)
		}
		p.sent += n
		if p.write(b) != nil {
			return // ConnectionLost says why
		}
	}
	if p.sent < p.size || p.lost || p.onWork != nil && p.onWork(p) {
		return
	}
	end := p.end
	p.end = endNot
	switch end {
	case endHalf:
		p.ended = p.t.WriteEOF() == nil
	case endClose:
		p.closed, p.quit = true, true
		_ = p.t.Close()
	case endAbort:
		p.quit = true
		p.t.Abort()
	}
}

func (p *talker) DataReceived(b []byte) (int, error) {
	n := len(b)
	if p.lazy > 0 && n < 50_000 && p.r.IntN(p.lazy) == 0 {
		n = p.r.IntN(n + 1)
	}
	p.got, p.gotAt = p.got+n, p.s.sim.Now()
	if p.slow > 0 && p.r.IntN(p.slow) == 0 {
		p.t.PauseReading()
		p.resume.Set(time.Duration(p.r.IntN(int(20 * time.Millisecond))))
	}
	if p.reply != nil && n > 0 {
		p.reply(p, b[:n])
	}
	if p.quits > 0 && p.got >= p.quits {
		p.quits, p.quit = 0, true
		if p.r.IntN(2) == 0 {
			p.t.Abort()
		} else {
			p.closed = true
			_ = p.t.Close()
		}
	}
	return n, nil
}

func (p *talker) EOFReceived(unused int) (bool, error) {
	p.got += unused
	p.eof = true
	if p.onEnd != nil {
		p.onEnd(p)
		return true, nil
	}
	return false, nil
}

func (p *talker) PauseWriting()  { p.paused = true }
func (p *talker) ResumeWriting() { p.paused = false; p.work() }

func (p *talker) ConnectionLost(err error) {
	p.lost, p.reason, p.lostAt = true, err, p.s.sim.Now()
	p.asleep = p.resume.Running() && p.paused
	p.timer.Stop()
	p.resume.Stop()
}

func (p *talker) ConnectFailed(*weir.ConnectError) { p.s.failed++ }

func (s *seedRun) talker() *talker {
	return &talker{s: s, backlog: -1, r: rand.New(rand.NewPCG(s.r.Uint64(), 1))}
}

// serve listens, with patience for drawn shortages.
func (s *seedRun) serve(f func() *talker) {
	var err error
	for range 500 {
		if err = s.listen(f); err == nil {
			return
		}
	}
	s.bad("cannot listen: %v", err)
}

// serveAgain listens as soon as there is a descriptor for it, which may take until
// other connections have ended.
func (s *seedRun) serveAgain(f func() *talker) {
	if s.listen(f) != nil {
		s.server.After(100*time.Millisecond, func() { s.serveAgain(f) })
	}
}

func (s *seedRun) listen(f func() *talker) (err error) {
	factory := s.v.Factory(func(weir.Transport) weir.Protocol {
		s.served++
		p := f()
		if p == nil {
			return nil
		}
		return p.protocol()
	})
	if s.underServe != nil {
		factory = layer.ServerFunc(factory, func(weir.Transport, *weir.AttemptError) {}, s.underServe)
	}
	s.ln, err = s.server.Listen("tcp", ":7000", factory)
	return err
}

// connect makes p a client.
func (s *seedRun) connect(p *talker) *weir.Connector {
	proto := s.v.Protocol(p.protocol())
	if s.under != nil {
		proto = layer.Client(proto, s.under)
	}
	return s.client.Connect("tcp", "server:7000", proto)
}

// dial makes n clients within some time.
func (s *seedRun) dial(n int, within time.Duration, f func() *talker) {
	for range n {
		p := f()
		s.client.After(time.Duration(s.r.Int64N(int64(within))), func() {
			c := s.connect(p)
			if s.r.IntN(10) == 0 {
				s.client.After(time.Duration(s.r.Int64N(int64(time.Second))), func() { c.Stop() })
			}
		})
	}
}

// A seedScenario is what two hosts do.
type seedScenario struct {
	name string
	play func(s *seedRun)
}

// seedScenarios are the scenarios that run under drawn faults.
var seedScenarios = []seedScenario{
	{"echo", func(s *seedRun) {
		s.serve(func() *talker {
			p := s.talker()
			p.plain = true
			p.reply = func(p *talker, b []byte) { _, _ = p.t.Write(b) }
			return p
		})
		s.dial(1+s.r.IntN(5), time.Second, func() *talker {
			p := s.talker()
			p.size = s.r.IntN(1 << s.r.IntN(18))
			p.end = endHalf
			p.lazy = s.r.IntN(4)
			return p
		})
	}},
	{"request, end, reply", func(s *seedRun) {
		s.serve(func() *talker {
			p := s.talker()
			p.lazy = s.r.IntN(3)
			p.onEnd = func(p *talker) {
				p.t.Loop().After(time.Duration(p.r.IntN(int(300*time.Millisecond))), func() {
					p.size = p.r.IntN(1 << p.r.IntN(19))
					p.end = endHalf + p.r.IntN(2)
					p.work()
				})
			}
			return p
		})
		s.dial(1+s.r.IntN(5), time.Second, func() *talker {
			p := s.talker()
			p.size, p.end = s.r.IntN(2000), endHalf
			return p
		})
	}},
	{"bulk both ways, slow readers", func(s *seedRun) {
		mk := func() *talker {
			p := s.talker()
			p.size = s.r.IntN(1 << s.r.IntN(20))
			p.slow = 1 + s.r.IntN(10)
			p.lazy = s.r.IntN(4)
			p.end = endHalf
			p.onEnd = func(*talker) {}
			return p
		}
		s.serve(mk)
		s.dial(1+s.r.IntN(3), time.Second, mk)
	}},
	{"publish and subscribe", func(s *seedRun) {
		var all []*talker
		s.serve(func() *talker {
			p := s.talker()
			all = append(all, p)
			p.reply = func(_ *talker, b []byte) {
				for _, q := range all {
					if q.t != nil && !q.lost && !q.paused {
						_, _ = q.t.Write(b)
					}
				}
			}
			return p
		})
		s.dial(2+s.r.IntN(6), time.Second, func() *talker {
			p := s.talker()
			p.size = s.r.IntN(1000)
			p.slow = s.r.IntN(3)
			p.t = nil
			p.quits = 1 + s.r.IntN(3000)
			return p
		})
	}},
	{"churn", func(s *seedRun) {
		mk := func() *talker {
			p := s.talker()
			p.size = s.r.IntN(200)
			p.end = endHalf + s.r.IntN(ends-endHalf)
			return p
		}
		s.serve(func() *talker {
			if s.r.IntN(10) == 0 {
				return nil
			}
			return mk()
		})
		s.dial(5+s.r.IntN(20), 3*time.Second, mk)
	}},
	{"resets", func(s *seedRun) {
		mk := func() *talker {
			p := s.talker()
			p.size = s.r.IntN(1 << s.r.IntN(18))
			p.slow = s.r.IntN(5)
			p.lazy = s.r.IntN(3)
			p.quits = 1 + s.r.IntN(20_000)
			p.end = endNot + s.r.IntN(ends)
			p.onEnd = func(p *talker) { p.end = endHalf; p.work() }
			return p
		}
		s.serve(mk)
		s.dial(1+s.r.IntN(6), time.Second, mk)
	}},
	{"callbacks that end others", func(s *seedRun) {
		// Every receiver of bytes may end anything: its own transport, another's, the
		// listener, which is opened again. Posts race with all of it.
		var all []*talker
		var mk func() *talker
		mk = func() *talker {
			p := s.talker()
			all = append(all, p)
			p.size = s.r.IntN(1 << s.r.IntN(17))
			p.slow = s.r.IntN(4)
			p.end = endNot + s.r.IntN(ends)
			p.reply = func(p *talker, b []byte) {
				_, _ = p.t.Write(b[:min(len(b), 100)])
				q := all[p.r.IntN(len(all))]
				if q.t == nil || q.t.Loop() != p.t.Loop() || p.r.IntN(4) > 0 {
					return
				}
				switch p.r.IntN(6) {
				case 0:
					q.t.Abort()
				case 1:
					q.closed = true
					_ = q.t.Close()
				case 2:
					q.t.PauseReading()
					q.resume.Set(time.Second)
				case 3:
					_, _ = p.t.Loop().Post(q.t.Abort) // an error means that the loop is closed
				case 4:
					_ = q.t.WriteEOF()
				default:
					if p.t.Loop() == s.server && s.ln != nil {
						_ = s.ln.Close()
						s.serveAgain(mk)
					}
				}
			}
			return p
		}
		s.serve(mk)
		s.dial(2+s.r.IntN(6), time.Second, mk)
	}},
	{"a loop ends", playLoopEnds},
	{"TLS ends", playTLSEnds},
	{"readers that pause for hours", playPausedReaders},
	{"datagrams", playPackets},
	{"programs", playPrograms},
	{"tenants that come and go", playTenants},
}

// runSeed plays a scenario under the faults of a seed: first with them, for
// safety, then without, for liveness.
func runSeed(tb testing.TB, scenario int, seed uint64) *seedRun {
	s := &seedRun{TB: tb, r: rand.New(rand.NewPCG(seed, uint64(scenario))), ends: map[[2]string]*talker{}}
	s.v = weirtest.NewInvariants(func(problem string) { s.bad("%s", problem) })
	s.sim = weirtest.NewSim(s, seed, weirtest.WithSwarm())
	s.server, s.client = s.sim.Host("server").Loop(), s.sim.Host("client").Loop()
	s.sim.OnStep(s.v.Step)
	seedScenarios[scenario].play(s)
	if err := s.sim.RunFor(time.Duration(s.r.Int64N(int64(time.Second) << s.r.IntN(8)))); err != nil {
		s.bad("with faults: %v", err)
	}
	s.healed = true
	s.sim.HealAll()
	if err := s.sim.Run(nil); err != nil {
		s.bad("healed: %v (G9, G10)", err)
	}
	if n := s.v.Open(); n != 0 {
		s.bad("%d connections made and never lost (G1, G10)", n)
	}
	if s.finish != nil {
		s.finish()
	}
	if s.ln != nil {
		before, failed := s.served, s.failed
		s.connect(&talker{s: s, r: s.r, end: endClose})
		if err := s.sim.Run(func() bool { return s.served > before }); err != nil || s.failed > failed {
			s.bad("after the faults nobody is served: %v (G10)", err)
		}
		_ = s.ln.Close()
	}
	if err := s.sim.Run(nil); err != nil {
		s.bad("closing: %v", err)
	}
	if n := s.server.Connections() + s.client.Connections(); n != 0 {
		s.bad("%d connections in the loops at rest (G6)", n)
	}
	for _, name := range []string{"server", "client"} {
		if n := s.sim.Host(name).Handles(); n != 0 {
			s.bad("%d handles of the %s are open at rest (G6)", n, name)
		}
	}
	for _, f := range s.cleanups {
		f()
	}
	for _, v := range s.sim.Violations() {
		s.bad("the contract of the backend: %s", v)
	}
	for _, err := range s.sim.Failures {
		var a *weir.AcceptError
		if !errors.As(err, &a) {
			s.bad("reported: %v", err)
		}
	}
	return s
}

// TestSeeds checks G1 to G4, G6, G9 and G10 over scenarios and seeds.
func TestSeeds(t *testing.T) {
	for i, sc := range seedScenarios {
		t.Run(sc.name, func(t *testing.T) {
			first, n := *simFirst, seedsEach()
			if seed, ok := weirtest.Seed(); ok {
				first, n = seed, 1
			}
			made, failed, cut, refused, long := 0, 0, 0, 0, 0
			for seed := first; seed < first+n; seed++ {
				s := runSeed(t, i, seed)
				made, failed = made+s.v.Made()+s.answered, failed+s.failed
				cut, refused, long = cut+s.cut, refused+s.refused, long+s.tooLong
				if len(s.problems) > 0 {
					for _, p := range s.problems[:min(len(s.problems), 10)] {
						t.Error(p)
					}
					s.sim.ExplainTo(t)
					return
				}
			}
			t.Logf("%d seeds: %d ends connected or datagrams answered, %d connects and %d datagrams failed, %d datagrams were cut, %d too long", n, made, failed, refused, cut, long)
			if n > 50 && made == 0 {
				t.Error("nothing was ever connected")
			}
			if n > 50 && sc.name == "datagrams" && (cut == 0 || refused == 0 || long == 0) {
				t.Error("no datagram was ever cut, or too long, or none ever failed")
			}
		})
	}
}

// seedsEach is how many seeds each scenario gets: they share the number from
// -sim.seeds, or get 100 or 10.
func seedsEach() uint64 {
	each := uint64(len(seedScenarios))
	if *simSeeds == 0 {
		each = 3
	}
	return (seedCount() + each - 1) / each
}

// TestSeedsAgain runs one seed in a hundred, but at least a few, twice: the same
// seed gives the same run, whatever GOMAXPROCS is (behaviour 94). The hash that
// it logs is the same with and without the race detector.
func TestSeedsAgain(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	all := fnv.New64a()
	n := max(seedsEach()/100, 3)
	for i, sc := range seedScenarios {
		var other uint64
		for seed := uint64(1); seed <= n; seed++ {
			var hashes [2]uint64
			for k := range hashes {
				runtime.GOMAXPROCS(k + 1)
				hashes[k] = runSeed(t, i, seed).sim.TraceHash()
			}
			if hashes[0] != hashes[1] {
				t.Errorf("seed %d of %q: hash %x with GOMAXPROCS 1, %x with 2", seed, sc.name, hashes[0], hashes[1])
			}
			if hashes[0] == other {
				t.Errorf("seeds %d and %d of %q run alike", seed-1, seed, sc.name)
			}
			other = hashes[0]
			_, _ = fmt.Fprintln(all, hashes[0]) // a hash takes everything
		}
	}
	t.Logf("hash of %d seeds of each scenario: %x", n, all.Sum64())
}
