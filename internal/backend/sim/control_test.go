package sim_test

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/sim"
)

// Events of the wire can be held and let go in any order (R60).
func TestHoldArrivals(t *testing.T) {
	w := newWorld(t, sim.Config{})
	a1, b1 := w.pair()
	a2, b2 := w.pair()
	hold := w.Hold(func(e sim.Event) bool { return e.What == sim.Arrival && e.Host == "a" })
	w.write(w.a, a1, "one")
	w.write(w.a, a2, "two")
	w.write(w.a, a1, "more")
	r1, r2 := w.b.begin(w.World, read(b1)), w.b.begin(w.World, read(b2))
	w.rest()
	held := hold.Held()
	if len(held) != 3 || r1.over || r2.over {
		t.Fatalf("%d held: %+v; read %t %t", len(held), held, r1.over, r2.over)
	}
	if held[0].Handle != a1 || held[0].N != 3 || held[1].Handle != a2 {
		t.Errorf("held %+v", held)
	}
	hold.Release(1)
	if w.finish(r2); r1.over {
		t.Error("what is held came")
	}
	w.want(r2, "two", nil)
	hold.Release(1) // the later of a connection includes the earlier
	w.want(w.finish(r1), "onemore", nil)
	if hold.ReleaseAll(); hold.Release(0) {
		t.Error("something is held after ReleaseAll")
	}
	hold.End()
	w.write(w.a, a1, "free")
	w.want(w.do(w.b, read(b1)), "free", nil)
	w.clean()
}

// What follows a held arrival in its direction is held with it, though nobody
// asked for it.
func TestHoldKeepsOrder(t *testing.T) {
	w := newWorld(t, sim.Config{})
	a, b := w.pair()
	first := true
	hold := w.Hold(func(e sim.Event) bool {
		mine := first && e.What == sim.Arrival
		first = first && !mine
		return mine
	})
	w.write(w.a, a, "one")
	w.write(w.a, a, "two")
	r := w.b.begin(w.World, read(b))
	if w.rest(); len(hold.Held()) != 2 || r.over {
		t.Fatalf("held %+v, read %t", hold.Held(), r.over)
	}
	hold.End()
	w.want(w.finish(r), "onetwo", nil)
	w.clean()
}

// A reset may overtake bytes that are held; they are lost then.
func TestHoldAndReset(t *testing.T) {
	w := newWorld(t, sim.Config{})
	a, b := w.pair()
	hold := w.Hold(func(e sim.Event) bool { return e.What == sim.Arrival })
	w.write(w.a, a, "lost")
	w.rest()
	w.shut(w.a, a, backend.CloseReset)
	w.rest()
	w.want(w.do(w.b, read(b)), "", reset)
	hold.End()
	w.clean()
}

func TestHoldResults(t *testing.T) {
	w := newWorld(t, sim.Config{})
	a, b := w.pair()
	hold := w.Hold(func(e sim.Event) bool { return e.What == sim.Result && e.Kind == backend.Read })
	w.write(w.a, a, "x")
	r := w.b.begin(w.World, read(b))
	w.rest()
	if r.over || len(hold.Held()) != 1 || !r.Armed() {
		t.Fatalf("over %t, held %+v", r.over, hold.Held())
	}
	if !w.b.Cancel(&r.Op) || len(hold.Held()) != 0 {
		t.Error("a held result cannot be canceled")
	}
	r = w.b.begin(w.World, read(b))
	w.rest()
	hold.Release(0)
	w.want(w.finish(r), "x", nil)
	hold.End()
	w.clean()
}

func TestChooseResult(t *testing.T) {
	w := newWorld(t, sim.Config{})
	var order []backend.Handle
	var handles []backend.Handle
	for range 4 {
		a, b := w.pair()
		w.write(w.a, a, "x")
		handles = append(handles, b)
	}
	if err := w.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	w.ChooseResult(func(es []sim.Event) int {
		for i, e := range es {
			if e.Kind != backend.Read {
				t.Errorf("a result of %v", e.Kind)
			}
			if e.Handle > es[0].Handle {
				return i
			}
		}
		return 0
	})
	var ops [4]backend.Op
	for i := range ops {
		ops[i] = backend.Op{Kind: backend.Read, Handle: handles[i], Owner: owner(func(c *backend.Completion) { order = append(order, c.Op.Handle) })}
		w.b.submit(&ops[i])
	}
	if err := w.Run(func() bool { return len(order) == 4 }); err != nil {
		t.Fatal(err)
	}
	if order[0] == handles[0] {
		t.Errorf("the order was not chosen: %v of %v", order, handles)
	}
	w.ChooseResult(nil)
	w.clean()
}

type owner func(*backend.Completion)

func (f owner) OpDone(c *backend.Completion) { f(c) }

func TestChooseLoop(t *testing.T) {
	for _, want := range []string{"a/0", "b/1"} {
		w := newWorld(t, sim.Config{})
		var turns []string
		w.ChooseLoop(func(names []string) int {
			for i, n := range names {
				if n == want {
					turns = append(turns, n)
					return i
				}
			}
			return 0
		})
		w.a.Wake()
		w.b.Wake()
		if w.Step(); len(turns) != 1 {
			t.Errorf("%s: turns %v", want, turns)
		}
		w.clean()
	}
}

// Each kind of call can be made to fail, the nth of them (R60).
func TestFail(t *testing.T) {
	bad := syscall.EIO
	w := newWorld(t, sim.Config{})
	w.Fail(sim.OpenCall, 2, bad)
	w.open(w.a)
	if _, err := w.a.Open(&backend.Spec{Family: backend.Inet}); !errors.Is(err, bad) {
		t.Errorf("Open: %v", err)
	}
	l, addr := w.listen(w.b, 0, 5)
	w.Fail(sim.ConnectCall, 1, bad)
	a, c := w.dial(w.a, addr)
	w.want(c, "", bad)
	c = w.a.begin(w.World, backend.Op{Kind: backend.Connect, Handle: a, Addr: &addr})
	if w.finish(c); c.err != nil {
		t.Fatal(c.err)
	}
	w.Host("b").Fail(sim.AcceptCall, 1, bad)
	w.do(w.b, backend.Op{Kind: backend.Accept, Handle: l}).want(t, int(backend.None), bad)
	b := backend.Handle(w.do(w.b, backend.Op{Kind: backend.Accept, Handle: l}).n)
	w.Fail(sim.WriteCall, 1, bad)
	w.do(w.a, backend.Op{Kind: backend.Write, Handle: a, Vec: [][]byte{{1}}}).want(t, 0, bad)
	w.write(w.a, a, "hello")
	w.Host("b").Fail(sim.ReadCall, 2, bad)
	w.Host("b").Short(sim.ReadCall, 1, 2)
	w.want(w.do(w.b, read(b)), "he", nil)
	w.want(w.do(w.b, read(b)), "", bad)
	w.want(w.do(w.b, read(b)), "llo", nil)
	w.Short(sim.WriteCall, 1, 3)
	w.do(w.a, backend.Op{Kind: backend.Write, Handle: a, Vec: [][]byte{{1, 2}, {3, 4}}}).want(t, 3, nil)
	w.Fail(sim.ShutCall, 1, bad)
	if err := w.a.Shut(a, backend.ShutWrite); !errors.Is(err, bad) {
		t.Errorf("Shut: %v", err)
	}
	w.Fail(sim.ShutCall, 1, bad)
	if err := w.a.Shut(a, backend.CloseFlat); !errors.Is(err, bad) {
		t.Errorf("Shut: %v", err)
	}
	if err := w.a.Shut(a, backend.CloseFlat); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a failed close did not close: %v", err)
	}
	w.Fail(sim.NameCall, 1, bad)
	if _, err := w.b.Name(b, true); !errors.Is(err, bad) {
		t.Errorf("Name: %v", err)
	}
	w.Fail(sim.WaitCall, 1, bad)
	if _, err := w.a.Wait(0, w.a.done[:]); !errors.Is(err, bad) {
		t.Errorf("Wait: %v", err)
	}
	if n := w.Calls(sim.OpenCall); n != 4 {
		t.Errorf("%d Opens counted, want 4", n)
	}
	w.clean()
}

func TestPairAndPipe(t *testing.T) {
	w := newWorld(t, sim.Config{})
	h := w.Host("a")
	second := newLoop(t, h)
	x, y, err := h.Pair(w.a.Backend, second.Backend)
	if err != nil {
		t.Fatal(err)
	}
	w.write(w.a, x, "ping")
	w.want(w.do(second, read(y)), "ping", nil)
	w.write(second, y, "unread")
	w.rest()
	w.shut(w.a, x, backend.CloseFlat)
	w.want(w.do(second, read(y)), "", reset) // as Linux has it for what was not read
	w.shut(second, y, backend.CloseFlat)

	r, wr, err := h.PipeOf(w.a.Backend, second.Backend)
	if err != nil {
		t.Fatal(err)
	}
	w.write(second, wr, "through")
	w.want(w.do(w.a, read(r)), "through", nil)
	hup := second.begin(w.World, backend.Op{Kind: backend.Hangup, Handle: wr})
	if w.RunFor(time.Second); hup.over {
		t.Error("a hang-up of a pipe with both ends open")
	}
	w.shut(w.a, r, backend.CloseFlat)
	w.want(w.finish(hup), "", syscall.EPIPE)
	w.shut(second, wr, backend.CloseFlat)

	r, wr, err = h.PipeOf(w.a.Backend, second.Backend)
	if err != nil {
		t.Fatal(err)
	}
	w.write(second, wr, "end")
	w.shut(second, wr, backend.CloseFlat)
	c := w.a.begin(w.World, backend.Op{Kind: backend.Read, Handle: r, Flags: backend.Multi})
	w.want(w.finish(c), "end", nil)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	w.clean()
}

// The clock stands still while anything can happen at the present moment
// (behaviour 91), and never passes what is due.
func TestClock(t *testing.T) {
	w := newWorld(t, sim.Config{Faults: sim.Faults{Latency: time.Millisecond}})
	tick := &ticker{w: w, every: 10 * time.Millisecond}
	b, err := w.Host("c").Backend()
	if err != nil {
		t.Fatal(err)
	}
	tick.b = b
	b.Drive(tick)
	a, _ := w.pair()
	for range 20 {
		w.a.begin(w.World, backend.Op{Kind: backend.Write, Handle: a, Vec: [][]byte{[]byte("x")}})
		if err := w.RunFor(7 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if want := int(w.Now() / tick.every); tick.ticks != want {
		t.Errorf("%d ticks in %v, want %d", tick.ticks, w.Now(), want)
	}
}

// ticker is a loop with one timer.
type ticker struct {
	w     *world
	b     *sim.Backend
	every time.Duration
	due   time.Duration
	ticks int
}

func (k *ticker) Turn(time.Duration) error {
	if now := k.b.Now(); now >= k.due+k.every {
		k.ticks++
		k.due += k.every
		if now != k.due {
			k.w.t.Errorf("tick %d at %v, due at %v", k.ticks, now, k.due)
		}
	}
	_, err := k.b.Wait(0, make([]backend.Completion, 1))
	return err
}

func (k *ticker) Next() (time.Duration, bool) { return k.due + k.every - k.b.Now(), true }

// A Wait for ever in a world where nothing can happen says so.
func TestAtRest(t *testing.T) {
	w := newWorld(t, sim.Config{})
	if _, err := w.a.Wait(-1, w.a.done[:]); !errors.Is(err, sim.ErrAtRest) {
		t.Errorf("Wait: %v", err)
	}
	if err := w.Run(func() bool { return false }); !errors.Is(err, sim.ErrAtRest) {
		t.Errorf("Run: %v", err)
	}
	if n, err := w.a.Wait(time.Hour, w.a.done[:]); n != 0 || err != nil || w.Now() != time.Hour {
		t.Errorf("Wait: %d, %v, at %v", n, err, w.Now())
	}
	w.a.Wake()
	if n, err := w.a.Wait(-1, w.a.done[:]); n != 0 || err != nil {
		t.Errorf("Wait after a Wake: %d, %v", n, err)
	}
	w.clean()
}

func TestWallAndStall(t *testing.T) {
	w := newWorld(t, sim.Config{})
	wall := w.a.Wall()
	w.JumpWall(-24 * time.Hour)
	if d := w.a.Wall().Sub(wall); d != -24*time.Hour || w.Now() != 0 {
		t.Errorf("the wall clock moved by %v, the other by %v", d, w.Now())
	}
	w.Stall(time.Minute)
	if n, err := w.a.Wait(time.Second, w.a.done[:]); n != 0 || err != nil || w.Now() != 61*time.Second {
		t.Errorf("Wait: %d, %v, at %v", n, err, w.Now())
	}
}

// A Hangup that is armed when its handle is closed is the caller's mistake, and is
// noticed; an Accept ends with its listener.
func TestViolations(t *testing.T) {
	w := sim.New(1, sim.Config{})
	l := newLoop(t, w.Host("a"))
	for _, c := range []struct {
		kind backend.Kind
		want int
	}{{backend.Accept, 0}, {backend.Hangup, 1}} {
		h, err := l.Open(&backend.Spec{Family: backend.Inet, Backlog: 1})
		if err != nil {
			t.Fatal(err)
		}
		op := l.begin(w, backend.Op{Kind: c.kind, Handle: h})
		if err := l.Shut(h, backend.CloseFlat); err != nil {
			t.Fatal(err)
		}
		if v := w.Violations(); len(v) != c.want || c.want > 0 && !strings.Contains(v[0], "armed") || op.Armed() {
			t.Errorf("kind %d: violations %q, armed %t", c.kind, v, op.Armed())
		}
	}
}

// TestTraceLines: a trace has a line for each thing that happens, the first one too, in
// their order: when, on which host, with which handle, and what.
func TestTraceLines(t *testing.T) {
	var lines bytes.Buffer
	w := newWorld(t, sim.Config{Trace: &lines})
	a, b := w.pair()
	w.write(w.a, a, "x")
	w.want(w.do(w.b, read(b)), "x", nil)
	want := []string{
		"0.000000000 b 1 open",
		"0.000000000 a 2 open",
		"0.000000000 a 2 submit",
		"0.000000000 a 2 connect",
		"0.000000000 b 1 submit",
		"0.001000000 a 2 syn",
		"0.002000000 a 2 syn-ack",
		"0.002000000 a 0 turn",
		"0.002000000 a 2 result",
		"0.003000000 a 2 establish",
		"0.003000000 b 1 turn",
		"0.003000000 b 1 result",
		"0.003000000 b 1 shut",
		"0.003000000 a 2 submit",
		"0.003000000 a 2 result",
		"0.003000000 b 3 submit",
		"0.004000000 a 2 arrival 1 0", // of one byte
		"0.004000000 b 1 turn",
		"0.004000000 b 3 result",
	}
	got := strings.Split(strings.TrimSuffix(lines.String(), "\n"), "\n")
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			t.Fatalf("no %q at the end of\n%s", want[i], lines.String())
		case i >= len(want):
			t.Fatalf("%q is too much at the end of\n%s", got[i], lines.String())
		case !strings.HasPrefix(got[i]+" ", want[i]+" "):
			t.Fatalf("line %d is %q, want %q, in\n%s", i+1, got[i], want[i], lines.String())
		}
	}
}
