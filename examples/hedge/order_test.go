package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/internal/backend/sim"
)

const (
	latency = 10 * time.Millisecond
	// roundTrip is how long an answer takes when nothing goes wrong: one round
	// trip to connect, one to ask.
	roundTrip = 4 * latency
)

// stage is a simulated network with the program on host "client" and servers
// that answer with their name.
type stage struct {
	*testing.T
	world   *sim.World
	client  *weir.Loop
	servers []string // their addresses
	asked   []string // who got the question, in order
	outcome outcome
	when    time.Duration // of the outcome
}

func newStage(t *testing.T, seed uint64, servers ...string) *stage {
	s := &stage{T: t, world: sim.New(seed, sim.Config{Faults: sim.Faults{Latency: latency}})}
	s.client = s.loop("client")
	for _, name := range servers {
		l := s.loop(name)
		_, err := l.Listen("tcp", ":7", func(tr weir.Transport) weir.Protocol {
			return frame.Lines(func(question []byte) error {
				s.asked = append(s.asked, name)
				_, err := fmt.Fprintf(tr, "%s says %s\n", name, question)
				return err
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		s.servers = append(s.servers, netip.AddrPortFrom(s.world.Host(name).Addrs()[0], 7).String())
	}
	return s
}

func (s *stage) loop(host string) *weir.Loop {
	b, err := s.world.Host(host).Backend()
	if err != nil {
		s.Fatal(err)
	}
	l, err := weir.NewLoop(weir.WithBackend(b), weir.WithErrorHandler(func(err error) {
		// Shortages are drawn; a panic or a broken promise is not.
		if _, expected := errors.AsType[*weir.AcceptError](err); !expected {
			s.Errorf("%s: %v", host, err)
		}
	}))
	if err != nil {
		s.Fatal(err)
	}
	b.Drive(l)
	return l
}

func (s *stage) ask(patience time.Duration) {
	startAsk(s.client, s.servers, []byte("why"), patience, func(answer []byte, err error) {
		s.outcome.done(answer, err)
		s.when = s.world.Now()
	})
}

// until runs until cond holds.
func (s *stage) until(cond func() bool) {
	s.Helper()
	if err := s.world.Run(cond); err != nil {
		s.Fatal(err)
	}
}

// rest runs until nothing more can happen, and checks that there is one outcome
// and that nothing remains of the program.
func (s *stage) rest() {
	s.Helper()
	s.until(nil)
	if s.outcome.calls != 1 {
		s.Errorf("done was called %d times, the last with %q, %v", s.outcome.calls, s.outcome.answer, s.outcome.err)
	}
	if u := s.world.Host("client").Usage(); u != (sim.Usage{}) {
		s.Errorf("the program leaves %+v", u)
	}
	if v := s.world.Violations(); len(v) > 0 {
		s.Error(v)
	}
}

// of matches what a host sends.
func of(what sim.What, from string) func(sim.Event) bool {
	return func(e sim.Event) bool { return e.What == what && e.Host == from }
}

func (s *stage) wants(answer string, asked ...string) {
	s.Helper()
	if s.outcome.answer != answer || strings.Join(s.asked, " ") != strings.Join(asked, " ") {
		s.Errorf("answer %q (%v) of %q who were asked, want %q of %q", s.outcome.answer, s.outcome.err, s.asked, answer, asked)
	}
}

// Nothing goes wrong: the time that it takes is exact.
func TestUndisturbed(t *testing.T) {
	s := newStage(t, 1, "first", "second")
	s.ask(time.Hour)
	s.rest()
	s.wants("first says why", "first")
	if s.when != roundTrip {
		t.Errorf("it took %v, want %v", s.when, roundTrip)
	}
}

// Both answers are on their way; that of the server asked later overtakes.
func TestSecondOvertakes(t *testing.T) {
	s := newStage(t, 1, "first", "second")
	hold := s.world.Hold(of(sim.Arrival, "first"))
	s.ask(roundTrip / 2)
	s.until(func() bool { return s.outcome.calls > 0 })
	if len(hold.Held()) == 0 {
		t.Error("the first answer was not on its way")
	}
	hold.End()
	s.rest()
	s.wants("second says why", "first", "second")
}

// Both answers arrive in the same moment, and one wait of the program's loop
// reports both, in either order.
func TestBothAtOnce(t *testing.T) {
	for _, winner := range []string{"first", "second"} {
		s := newStage(t, 1, "first", "second")
		answers := s.world.Hold(func(e sim.Event) bool { return e.What == sim.Arrival && e.Host != "client" })
		s.ask(roundTrip / 2)
		s.until(func() bool { return len(answers.Held()) == 2 })
		addr := netip.MustParseAddrPort(s.servers[map[string]int{"first": 0, "second": 1}[winner]])
		choices := 0
		s.world.ChooseResult(func(events []sim.Event) int {
			for i, e := range events {
				if e.Host == "client" && len(events) == 2 && e.Remote.IP == addr {
					choices++
					return i
				}
			}
			return 0
		})
		answers.End()
		s.rest()
		s.wants(winner+" says why", "first", "second")
		if choices == 0 {
			t.Error("the two answers did not come together")
		}
	}
}

// The answer arrives at the very moment when patience runs out: whichever the
// loop takes first, the outcome is the answer, once.
func TestAnswerMeetsTimer(t *testing.T) {
	s := newStage(t, 1, "first", "second")
	s.ask(roundTrip)
	s.rest()
	s.wants("first says why", "first")
}

// The first server's connect fails, as the descriptors have run out; the next
// is asked without waiting.
func TestNoDescriptor(t *testing.T) {
	s := newStage(t, 1, "first", "second")
	s.world.Host("client").Fail(sim.OpenCall, 1, syscall.EMFILE)
	s.ask(time.Hour)
	s.rest()
	s.wants("second says why", "second")
	if s.when != roundTrip {
		t.Errorf("it took %v", s.when)
	}
}

// The answer arrives in pieces, down to a byte.
func TestShortReads(t *testing.T) {
	s := newStage(t, 1, "first")
	for nth := range 5 {
		s.world.Host("client").Short(sim.ReadCall, nth+1, 1)
	}
	s.ask(time.Hour)
	s.rest()
	s.wants("first says why", "first")
}

// The first server crashes with the question; the second is still being
// connected when the wait for a third ends.
func TestCrashAndSlowConnect(t *testing.T) {
	s := newStage(t, 1, "first", "second", "third")
	const patience = 2 * roundTrip
	second := netip.MustParseAddrPort(s.servers[1])
	slow := s.world.Hold(func(e sim.Event) bool { return e.What == sim.SynAck && (e.Remote.IP == second || e.Local.IP == second) })
	crash := s.world.Hold(of(sim.Arrival, "first"))
	s.ask(patience)
	s.until(func() bool { return len(crash.Held()) > 0 })
	s.world.Host("first").Crash()
	crash.End()
	s.until(func() bool { return s.outcome.calls > 0 })
	if s.when != 2*patience+roundTrip {
		t.Errorf("it took %v, want %v", s.when, 2*patience+roundTrip)
	}
	slow.End()
	s.rest()
	s.wants("third says why", "first", "third")
}

// Whatever goes wrong, the program is told once, with a correct answer or an
// error, and leaves nothing behind. A seed does the same each time.
func TestSeeds(t *testing.T) {
	const seeds = 1000
	answered := uint64(0)
	for seed := range uint64(seeds) {
		run := func() (uint64, outcome) {
			s := newStage(t, seed, "first", "second", "third")
			s.world.SetFaults(sim.Draw(seed))
			s.ask(50 * time.Millisecond)
			if err := s.world.RunFor(time.Minute); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			s.world.HealAll()
			s.rest()
			o := s.outcome
			if name, ok := strings.CutSuffix(o.answer, " says why"); o.err == nil && (!ok || !strings.Contains(strings.Join(s.asked, " "), name)) {
				t.Errorf("answer %q, of %q", o.answer, s.asked)
			}
			return s.world.TraceHash(), o
		}
		hash, o := run()
		if o.err == nil {
			answered++
		}
		if again, _ := run(); again != hash {
			t.Errorf("two runs, two traces: %x and %x", hash, again)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d of %d were answered", answered, seeds)
	if answered < seeds/2 || answered == seeds {
		t.Errorf("%d of %d were answered: the faults are not what they should be", answered, seeds)
	}
}
