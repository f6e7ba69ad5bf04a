package weirtest

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// later answers what it gets by a post to its loop, and a second later sends
// how much it was.
type later struct {
	t   weir.Transport
	log func(string, ...any)
	n   int
}

func (p *later) ConnectionMade(t weir.Transport) {
	p.t = t
	t.Loop().Soon(func() { p.log("posted") })
}

func (p *later) DataReceived(b []byte) (int, error) {
	p.n += len(b)
	return len(b), nil
}

func (p *later) EOFReceived(int) (bool, error) {
	p.t.Loop().After(time.Second, func() {
		p.log("%d bytes", p.n)
		_, _ = p.t.Write([]byte("bye"))
		_ = p.t.Close()
	})
	return true, nil
}

func (p *later) ConnectionLost(error) { p.log("lost") }

// TestEveryChopLoop: a protocol may use its loop, and its timers are waited for.
func TestEveryChopLoop(t *testing.T) {
	calls := 0
	EveryChop(t, []byte("some words"), func(log func(string, ...any)) weir.Protocol {
		return &later{log: func(f string, args ...any) { calls++; log(f, args...) }}
	})
	if ways := 1 + 1 + 9 + 64; calls != 3*ways {
		t.Errorf("%d calls in %d ways, want three each", calls, ways)
	}
}

// TestRecorderPass: a Recorder has a loop of its own, whose time passes on request.
func TestRecorderPass(t *testing.T) {
	r := NewRecorder(t)
	var said []string
	r.Connect(&later{log: func(f string, _ ...any) { said = append(said, f) }})
	r.Pass(0)
	r.DeliverEOF()
	r.Pass(time.Second - 2*time.Nanosecond)
	if got := strings.Join(said, ", "); got != "posted" {
		t.Errorf("before its time: %s", got)
	}
	r.Pass(time.Millisecond)
	if got := strings.Join(said, ", "); got != "posted, %d bytes, lost" || string(r.Written()) != "bye" {
		t.Errorf("%s; written %q", got, r.Written())
	}
}

// TestSeeds is run by TestSeedsExplain, and passes by itself.
func TestSeeds(t *testing.T) {
	bad := os.Getenv("WEIR_TEST_BAD_SEEDS")
	seen := 0
	Seeds(t, 6, func(t *testing.T, s *Sim) {
		seen++
		heard := false
		if _, err := s.Host("server").Loop().Listen("tcp", ":7", func(weir.Transport) weir.Protocol {
			return weir.DataFunc(func(p []byte) (int, error) { heard = true; return len(p), nil })
		}); err != nil {
			t.Fatal(err)
		}
		s.Host("client").Loop().Connect("tcp", "server:7", &hello{})
		s.Until("a word", func() bool { return heard })
		if bad != "" && s.Seed()%2 == 0 {
			t.Error("planted")
		}
	}, WithFaults(Faults{Jitter: time.Millisecond, Loss: 0.05}))
	if _, asked := Seed(); !asked && seen != 6 {
		t.Errorf("%d worlds, want 6", seen)
	}
}

// hello says a word.
type hello struct{ weir.NopProtocol }

func (hello) ConnectionMade(t weir.Transport) { _, _ = t.Write([]byte("hello")) }

// TestSeedsExplain: of many worlds the first that fails is explained, in words,
// with a command that replays it; the others are only named.
func TestSeedsExplain(t *testing.T) {
	run := func(args ...string) string {
		cmd := exec.Command(os.Args[0], append([]string{"-test.run=^TestSeeds$"}, args...)...)
		cmd.Env = append(os.Environ(), "WEIR_TEST_BAD_SEEDS=1")
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%v passes", args)
		}
		return string(out)
	}
	all := run()
	for _, want := range []string{
		"--- FAIL: TestSeeds/seed=2", "--- FAIL: TestSeeds/seed=4", "3 of 6 seeds failed",
		"in the world of seed 2", "a segment is lost and sent again: 1 in 20 times", "server: ", "what happened last",
		"replay it: go test -run '^TestSeeds$/^seed=2$' -count=1 -weir.seed=2",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("it does not say %q:\n%s", want, all)
		}
	}
	if n := strings.Count(all, "replay it"); n != 1 {
		t.Errorf("%d worlds are explained, want 1", n)
	}
	one := run("-weir.seed=4")
	if !strings.Contains(one, "in the world of seed 4") || !strings.Contains(one, "the trace") || strings.Contains(one, "seed=2") {
		t.Errorf("with a seed that was asked for it says\n%s", one)
	}
}

// TestFaultsTold: each fault has a description.
func TestFaultsTold(t *testing.T) {
	fields := reflect.TypeFor[Faults]()
	for i := range fields.NumField() {
		if name := fields.Field(i).Name; faultWords[name] == "" {
			t.Errorf("Faults.%s has no words", name)
		}
	}
	if got := tell(Faults{}); got != "  nothing goes wrong\n" {
		t.Errorf("of a calm world it is told %q", got)
	}
}

// TestSimTLS: one call makes random numbers repeat from the seed, and differ
// with another seed.
func TestSimTLS(t *testing.T) {
	drawn := map[string]int{}
	for i, seed := range []uint64{7, 7, 8} {
		t.Run("", func(t *testing.T) {
			s := NewSim(t, seed)
			server, client := s.TLS(t)
			b := make([]byte, 16)
			_, _ = rand.Read(b)
			drawn[hex.EncodeToString(b)+string(server.Certificates[0].Certificate[0])] |= 1 << i
			if !server.Time().Equal(s.WallNow()) || !client.Time().Equal(s.WallNow()) {
				t.Errorf("the time is %v, the world's %v", server.Time(), s.WallNow())
			}
		})
	}
	if _, asked := Seed(); !asked && len(drawn) != 2 {
		t.Errorf("%d different draws, want one for each seed", len(drawn))
	}
}

// TestWorldByHand: a test decides by hand what happens in a world.
func TestWorldByHand(t *testing.T) {
	s := NewSim(t, 1)
	server, client := s.Host("server"), s.Host("client")
	heard := ""
	if _, err := server.Loop().Listen("tcp", ":7", func(weir.Transport) weir.Protocol {
		return weir.DataFunc(func(p []byte) (int, error) { heard += string(p); return len(p), nil })
	}); err != nil {
		t.Fatal(err)
	}
	hold := s.Hold(func(e SimEvent) bool { return e.What == Arrival && e.Host == "client" && e.N > 0 })
	client.Loop().Connect("tcp", "server:7", hello{})
	if err := s.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	if got := hold.Held(); len(got) != 1 || got[0].N != 5 || got[0].Remote.Port() != 7 || heard != "" {
		t.Fatalf("held %+v, heard %q", got, heard)
	}
	if !hold.Release(0) || hold.Release(0) {
		t.Error("there is not one to release")
	}
	s.Until("the word", func() bool { return heard == "hello" })
	hold.End()
	n := s.Calls(ReadCall)
	if n == 0 || server.Handles() != 2 {
		t.Errorf("%d reads, %d handles", n, server.Handles())
	}
	server.Crash()
	if !server.Down() {
		t.Error("a crashed host is up")
	}
	server.Restart()
	if server.Down() {
		t.Error("a restarted host is down")
	}
}
