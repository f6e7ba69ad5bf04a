package weirtest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// SimOption is an option of NewSim.
type SimOption func(*simConfig)

type simConfig struct {
	sim.Config
}

// WithFaults sets what goes wrong; without it, nothing does.
func WithFaults(f Faults) SimOption { return func(c *simConfig) { c.Faults = sim.Faults(f) } }

// WithSwarm draws from the seed which faults there are and how strong each is.
func WithSwarm() SimOption { return func(c *simConfig) { c.Swarm = true } }

// WithGoroutines lets goroutines of the test post to a loop that one of them
// runs (package netconn): when the world would be at rest, the loop waits for
// them. The world is then only as deterministic as they are, and its clock does
// not wait for them.
func WithGoroutines() SimOption { return func(c *simConfig) { c.Foreign = true } }

// Sim is a simulated network for a test: hosts with loops, one clock, and a
// seed that decides everything else. The framework and the application run on
// it unchanged; only the backend below differs.
//
//	s := weirtest.NewSim(t, 7)
//	server, client := s.Host("server"), s.Host("client")
//	server.Loop().Listen("tcp", ":7000", factory)
//	client.Loop().Connect("tcp", "server:7000", p)
//	s.Until("the reply", func() bool { return p.done })
//
// Everything happens on the goroutine that calls Step, Run or Until. A failure
// prints the seed and the command that replays it.
type Sim struct {
	tb     testing.TB
	world  *sim.World
	seed   uint64
	hosts  []*SimHost
	trace  bytes.Buffer // of a requested seed
	recent recent
	open   string // what was open on the hosts when the test ended
	// Failures are what the loops reported to their error handlers.
	Failures []error

	check []func() // after each step
	said  bool
}

// seedFlag and the environment variable WEIR_SEED choose a single seed.
var seedFlag = flag.Uint64("weir.seed", 0, "the one seed that simulated tests run with; 0: as the test says (also WEIR_SEED)")

// Seed returns the seed requested on the command line by -weir.seed=N, or by
// WEIR_SEED=N, and whether there is one. With one, a simulated test keeps its
// trace and prints it if it fails.
func Seed() (uint64, bool) {
	if *seedFlag != 0 {
		return *seedFlag, true
	}
	n, err := strconv.ParseUint(os.Getenv("WEIR_SEED"), 10, 64)
	return n, err == nil && n != 0
}

// NewSim makes a world from a seed; a seed from -weir.seed or WEIR_SEED takes
// its place. The world's loops are closed when the test ends.
func NewSim(tb testing.TB, seed uint64, opts ...SimOption) *Sim {
	tb.Helper()
	return newSim(tb, seed, opts, false)
}

// newSim is NewSim; with last, the world's last events are kept for Explain.
func newSim(tb testing.TB, seed uint64, opts []SimOption, last bool) *Sim {
	tb.Helper()
	c := simConfig{}
	for _, o := range opts {
		o(&c)
	}
	s := &Sim{tb: tb, seed: seed}
	if asked, ok := Seed(); ok {
		s.seed = asked
		c.Trace = &s.trace
	} else if last {
		c.Trace = &s.recent
	}
	s.world = sim.New(s.seed, c.Config)
	tb.Cleanup(func() {
		s.open = s.tellHosts() // Close ends it
		s.Close()
		if tb.Failed() {
			s.Explain()
		}
	})
	return s
}

// Seed is the seed that the world was made with.
func (s *Sim) Seed() uint64 { return s.seed }

// Now is how long the world has existed, by its own clock.
func (s *Sim) Now() time.Duration { return s.world.Now() }

// TraceHash is a hash of everything that happened, in order.
func (s *Sim) TraceHash() uint64 { return s.world.TraceHash() }

// Explain describes the world in words: what went wrong in it, what its loops
// reported, what is open, what happened last, and the command that replays the
// run. It is called automatically when the test fails.
func (s *Sim) Explain() {
	s.tb.Helper()
	if s.said {
		return
	}
	s.said = true
	s.ExplainTo(s.tb)
}

// ExplainTo is Explain for another test than the one that the Sim was made with.
func (s *Sim) ExplainTo(tb testing.TB) {
	tb.Helper()
	const most = 200_000
	if t := s.trace.Bytes(); len(t) > most {
		tb.Logf("the end of the trace (time, host, socket, what, two numbers):\n%s", t[len(t)-most:])
	} else if len(t) > 0 {
		tb.Logf("the trace (time, host, socket, what, two numbers):\n%s", t)
	} else if s.recent.n > 0 {
		tb.Logf("what happened last (time, host, socket, what, two numbers):\n%s", s.recent.String())
	}
	for i, err := range s.Failures {
		if i == 20 {
			break
		}
		tb.Log("reported to a loop:", firstLine(err))
	}
	open := s.open
	if open == "" {
		open = s.tellHosts()
	}
	tb.Logf("in the world of seed %d, after %v of its time and %d events,\n%swith these faults,\n%sreplay it: go test -run '%s' -count=1 -weir.seed=%d",
		s.seed, s.Now(), s.world.Stats().Total(), open, tell(s.Faults()), runPattern(tb.Name()), s.seed)
}

// tellHosts says what is open on each host.
func (s *Sim) tellHosts() string {
	var b strings.Builder
	for _, h := range s.hosts {
		u := h.host.Usage()
		fmt.Fprintf(&b, "  %s: %d handles open, %d of them listen", h.host.Name(), u.Handles, u.Listeners)
		if h.host.Down() {
			b.WriteString("; it has crashed")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// runPattern is the name of a test in the form that -run takes, each part anchored.
func runPattern(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = "^" + regexp.QuoteMeta(parts[i]) + "$"
	}
	return strings.Join(parts, "/")
}

// SimHost is a host of a Sim.
type SimHost struct {
	sim  *Sim
	host *sim.Host
	loop *weir.Loop
	all  []*weir.Loop
}

// Host makes a host, or returns the one of that name. Without addresses it gets
// one of each family. Names of hosts resolve on every loop.
func (s *Sim) Host(name string, addrs ...netip.Addr) *SimHost {
	for _, h := range s.hosts {
		if h.host.Name() == name {
			return h
		}
	}
	h := &SimHost{sim: s, host: s.world.Host(name, addrs...)}
	s.hosts = append(s.hosts, h)
	return h
}

// Addr is the host's first address with a port.
func (h *SimHost) Addr(port uint16) string {
	return netip.AddrPortFrom(h.host.Addrs()[0], port).String()
}

// Loop is the host's loop, made when first asked for. The test does not run it;
// the world does: Step, Run, Until.
func (h *SimHost) Loop() *weir.Loop {
	if h.loop == nil {
		h.loop = h.NewLoop()
	}
	return h.loop
}

// NewLoop makes another loop on the host. Its failures go to Sim.Failures
// unless opts say otherwise.
func (h *SimHost) NewLoop(opts ...weir.LoopOption) *weir.Loop {
	h.sim.tb.Helper()
	_, l := h.newLoop(opts...)
	return l
}

func (h *SimHost) newLoop(opts ...weir.LoopOption) (*sim.Backend, *weir.Loop) {
	s := h.sim
	s.tb.Helper()
	be, err := h.host.Backend()
	if err != nil {
		s.tb.Fatal(err)
	}
	opts = append([]weir.LoopOption{
		weir.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))),
		weir.WithErrorHandler(func(err error) { s.Failures = append(s.Failures, err) }),
		weir.WithResolver(simNames{s}),
		weir.WithBackend(be),
	}, opts...)
	l, err := weir.NewLoop(opts...)
	if err != nil {
		s.tb.Fatal(err)
	}
	be.Drive(l)
	h.all = append(h.all, l)
	return be, l
}

// simNames resolves the names of hosts.
type simNames struct{ s *Sim }

var _ weir.Resolver = simNames{}

func (n simNames) LookupNetIP(l *weir.Loop, network, host string, done func([]netip.Addr, error)) func() {
	var addrs []netip.Addr
	for _, a := range n.s.world.Lookup(host) {
		if network == "ip" || network == "ip4" && a.Is4() || network == "ip6" && a.Is6() {
			addrs = append(addrs, a)
		}
	}
	if host == "localhost" && network != "ip6" {
		addrs = append(addrs, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	c := l.Soon(func() {
		if len(addrs) == 0 {
			done(nil, fmt.Errorf("no host %q in the simulated world", host))
			return
		}
		done(addrs, nil)
	})
	return func() { c.Cancel() }
}

// OnStep calls f after each step of Run and Until.
func (s *Sim) OnStep(f func()) { s.check = append(s.check, f) }

// Step does one thing: an event that is due, a turn of a loop that has something
// to do, or a jump of the clock to the next moment at which there is something.
// It returns false when the world is at rest: nothing can happen any more.
func (s *Sim) Step() bool {
	if s.world.Err() != nil {
		return false
	}
	more := s.world.Step()
	for _, f := range s.check {
		f()
	}
	return more
}

// simSteps bounds a Run.
const simSteps = 20_000_000

// Run steps until cond holds or, if cond is nil, until the world is at rest.
// Its error is nil then, and otherwise says why not: the world came to rest
// before, the loops spin, a loop failed, or there were too many steps.
func (s *Sim) Run(cond func() bool) error {
	for range simSteps {
		if err := s.world.Err(); err != nil {
			return err
		}
		if cond != nil && cond() {
			return nil
		}
		if !s.Step() {
			if cond == nil || cond() {
				return s.world.Err()
			}
			if err := s.world.Err(); err != nil {
				return err
			}
			return sim.ErrAtRest
		}
	}
	return sim.ErrLimit
}

// Until is Run, and fails the test if cond never holds.
func (s *Sim) Until(what string, cond func() bool) {
	s.tb.Helper()
	if err := s.Run(cond); err != nil {
		s.Explain()
		s.tb.Fatalf("waited in vain for %s: %v", what, err)
	}
}

// RunFor steps through d of the world's time.
func (s *Sim) RunFor(d time.Duration) error {
	if len(s.check) == 0 {
		return s.world.RunFor(d)
	}
	done := false
	until := s.Now() + d
	for _, h := range s.hosts {
		if len(h.all) > 0 { // someone's timer brings the clock there
			h.all[0].After(d, func() { done = true })
			return s.Run(func() bool { return done || s.Now() > until })
		}
	}
	return s.world.RunFor(d)
}

// Close closes every loop and checks that nothing is left on the hosts that are
// up: no handle, no Op, no program (G6), and that no caller broke the backend's contract.
func (s *Sim) Close() {
	s.tb.Helper()
	for _, h := range s.hosts {
		for _, l := range slices.Clone(h.all) {
			err := l.Close()
			if cut := (*weir.CutError)(nil); errors.As(err, &cut) {
				err = nil // a world may end in the middle of things
			}
			if err != nil && !h.host.Down() && s.world.Err() == nil {
				s.tb.Errorf("closing a loop of %s: %v", h.host.Name(), err)
			}
		}
		h.all, h.loop = nil, nil
		h.host.EndLeft()
		s.world.EndPrograms()
		if u := h.host.Usage(); u.Handles != 0 || u.Armed != 0 || u.Listeners != 0 || u.Programs != 0 {
			s.tb.Errorf("left on %s: %+v (G6)", h.host.Name(), u)
		}
	}
	for _, v := range s.world.Violations() {
		s.tb.Error("contract of the backend:", v)
	}
}

// Pipe makes a pipe on the host, and returns the descriptors of its reading and its writing
// end, to pass to Attach or AttachPair of any of the host's loops. Only those loops can use
// them; they count as handles. The host's faults apply: the error is EMFILE if there are no
// handles.
func (h *SimHost) Pipe() (r, w int, err error) { return h.host.Pipe() }

// SocketPair makes two connected UNIX sockets on the host, as Pipe makes a pipe.
func (h *SimHost) SocketPair() (a, b int, err error) { return h.host.SocketPair() }

// CloseDescriptors closes descriptors of Pipe and SocketPair that no loop has taken.
func (h *SimHost) CloseDescriptors(fds ...int) {
	for _, fd := range fds {
		h.host.CloseDescriptor(fd)
	}
}

// until is Streams.Until.
func (s *Sim) until(t *testing.T) func(done func() bool) bool {
	return func(done func() bool) bool {
		err := s.Run(done)
		if err != nil {
			t.Log(err)
		}
		return err == nil
	}
}

// SimPairs returns a Maker of socket pairs between two loops of a simulated host.
func SimPairs(seed uint64, opts ...SimOption) Maker {
	return simDescriptors(seed, opts, func(t *testing.T, h *SimHost) (server, client [2]int) {
		t.Helper()
		a, b, err := h.SocketPair()
		if err != nil {
			t.Fatal(err)
		}
		return [2]int{a, a}, [2]int{b, b}
	})
}

// SimPipes returns a Maker of streams over two pipes between two loops of a simulated host.
func SimPipes(seed uint64, opts ...SimOption) Maker {
	return simDescriptors(seed, opts, func(t *testing.T, h *SimHost) (server, client [2]int) {
		t.Helper()
		var errs [2]error
		client[0], server[1], errs[0] = h.Pipe()
		server[0], client[1], errs[1] = h.Pipe()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		return server, client
	})
}

// simDescriptors makes streams of what pair returns: a descriptor to read from and one to
// write to for each end.
func simDescriptors(seed uint64, opts []SimOption, pair func(t *testing.T, h *SimHost) (server, client [2]int)) Maker {
	return func(t *testing.T) *Streams {
		s := NewSim(t, seed, opts...)
		h := s.Host("host")
		st := &Streams{Server: h.NewLoop(), Client: h.NewLoop(), HalfClose: true, Until: s.until(t)}
		st.Connect = func(f weir.Factory, p weir.Protocol, opts ...weir.StreamOption) {
			t.Helper()
			server, client := pair(t, h)
			st.Watched = server[0] != server[1]
			attach := func(l *weir.Loop, fds [2]int, f weir.Factory) {
				t.Helper()
				_, err := l.AttachPair(fds[0], fds[1], "pair", f, weir.JoinOptions(opts...))
				if err != nil && !errors.Is(err, weir.ErrClosed) {
					t.Fatal(err)
				}
			}
			attach(st.Server, server, f)
			attach(st.Client, client, func(weir.Transport) weir.Protocol { return p })
		}
		return st
	}
}

// SimStreams returns a Maker of TCP connections between two hosts of a
// simulated world.
func SimStreams(seed uint64, opts ...SimOption) Maker {
	return func(t *testing.T) *Streams {
		s := NewSim(t, seed, opts...)
		server, client := s.Host("server"), s.Host("client")
		port := uint16(6999)
		return &Streams{
			Server: server.Loop(), Client: client.Loop(),
			HalfClose: true, Reset: true,
			Until: s.until(t),
			Connect: func(f weir.Factory, p weir.Protocol, opts ...weir.StreamOption) {
				t.Helper()
				port++
				address := server.Addr(port)
				if _, err := server.Loop().Listen("tcp", address, f, weir.JoinOptions(opts...)); err != nil {
					t.Fatal(err)
				}
				client.Loop().Connect("tcp", address, p, weir.JoinOptions(opts...))
			},
		}
	}
}
