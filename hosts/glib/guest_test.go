package glib_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/hosts/glib"
	"github.com/weir-io/weir/hosts/glib/internal/gtest"
)

type guest struct {
	loop *weir.Loop
	ctx  gtest.Context
	*glib.Guest
}

func attach(t *testing.T) *guest {
	t.Helper()
	ended := false // callbacks that are left then are reported
	loop, err := weir.NewLoop(weir.WithErrorHandler(func(err error) {
		if !ended {
			t.Error(err)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx := gtest.New()
	g, err := glib.Attach(loop, glib.WithContext(ctx.Pointer()))
	if errors.Is(err, weir.ErrNoPollFD) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended = true
		g.Close()
		_ = loop.Close()
		ctx.Free()
	})
	return &guest{loop, ctx, g}
}

// TestGuest: timers, posts and connections of the loop run inside a GLib main loop, on
// its thread (R24).
func TestGuest(t *testing.T) {
	g := attach(t)
	thread := unix.Gettid()
	here := func(what string) {
		if got := unix.Gettid(); got != thread {
			t.Errorf("%s ran on thread %d, and the main loop on %d", what, got, thread)
		}
	}
	var timed, posted, read bool
	began := time.Now()
	g.loop.After(20*time.Millisecond, func() { here("the timer"); timed = time.Since(began) >= 20*time.Millisecond })
	go func() { _, _ = g.loop.Post(func() { here("the post"); posted = true }) }()
	_, _, err := g.loop.SocketPair(
		func(tr weir.Transport) weir.Protocol {
			_, _ = tr.Write([]byte("hello"))
			return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
		},
		func(weir.Transport) weir.Protocol {
			return weir.DataFunc(func(p []byte) (int, error) {
				here("the read")
				read = string(p) == "hello"
				return len(p), nil
			})
		})
	if err != nil {
		t.Fatal(err)
	}
	g.ctx.Until(func() bool { return timed && posted && read })
}

// TestTimerSetOutside: a timer that a handler of the host sets, outside of any turn, is
// heeded although no descriptor says so.
func TestTimerSetOutside(t *testing.T) {
	g := attach(t)
	fired := false
	g.ctx.Timeout(5, func() bool {
		g.loop.After(10*time.Millisecond, func() { fired = true })
		return false
	})
	g.ctx.Until(func() bool { return fired })
}

// TestRedraw: a loop that always has something to do leaves room for what GTK redraws,
// and for timeouts.
func TestRedraw(t *testing.T) {
	g := attach(t)
	var again func()
	spins := 0
	again = func() { spins++; g.loop.Soon(again) }
	again()
	redraws, ticks := 0, 0
	g.ctx.Idle(gtest.Redraw, func() bool { redraws++; return redraws < 100 })
	g.ctx.Timeout(1, func() bool { ticks++; return true })
	for range 100_000 {
		g.ctx.Iterate()
		if redraws >= 100 && ticks >= 5 && spins >= 100 {
			return
		}
	}
	t.Errorf("%d redraws, %d ticks, %d callbacks of the loop", redraws, ticks, spins)
}

// TestCloseInside: the guest can be closed inside a callback of its loop; no turn comes
// after that, and the host goes on.
func TestCloseInside(t *testing.T) {
	g := attach(t)
	g.loop.Soon(func() {
		g.Close()
		g.loop.Soon(func() { t.Error("a turn ran after Close") })
	})
	ticks := 0
	g.ctx.Timeout(2, func() bool { ticks++; return true })
	g.ctx.Until(func() bool { return ticks >= 5 })
	if g.Turns() != 1 {
		t.Errorf("%d turns, want 1", g.Turns())
	}
}

// TestCloseOutside: after a handler of the host closed the guest, GLib asks for no more turns,
// although the loop has something to do.
func TestCloseOutside(t *testing.T) {
	g := attach(t)
	ticks, turns := 0, 0
	g.ctx.Timeout(2, func() bool {
		if ticks++; ticks == 2 {
			g.loop.Soon(func() { t.Error("a turn ran after Close") })
			g.Close()
			turns = g.Turns()
		}
		return true
	})
	g.ctx.Until(func() bool { return ticks >= 5 })
	if g.Turns() != turns {
		t.Errorf("%d turns after Close", g.Turns()-turns)
	}
}

// TestLoopClosedFirst: GLib stops watching the descriptor of a loop that was closed, before
// the number belongs to something else for long.
func TestLoopClosedFirst(t *testing.T) {
	g := attach(t)
	if err := g.loop.Close(); err != nil {
		t.Fatal(err)
	}
	ticks := 0
	g.ctx.Timeout(2, func() bool { ticks++; return true })
	g.ctx.Iterate()
	// The descriptor's number again, and readable for ever.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	_, _ = w.WriteString("x")
	n := 0
	g.ctx.Until(func() bool { n++; return ticks >= 5 })
	if n > 30 {
		t.Errorf("%d iterations for 5 ticks: a source is always ready", n)
	}
	if g.Turns() != 0 {
		t.Errorf("%d turns of a closed loop", g.Turns())
	}
}

// TestTurnLimit: GLib has its thread back within a few milliseconds, however many callbacks
// are ready.
func TestTurnLimit(t *testing.T) {
	g := attach(t)
	const n = 40
	called := 0
	for range n {
		g.loop.Soon(func() {
			for began := time.Now(); time.Since(began) < time.Millisecond; {
			}
			called++
		})
	}
	most := 0
	for called < n {
		before := called
		g.ctx.Iterate()
		most = max(most, called-before)
	}
	if most > 4 {
		t.Errorf("%d callbacks of 1 ms in one turn", most)
	}
}

// TestTurnLimitKept: a limit that the loop has already stays.
func TestTurnLimitKept(t *testing.T) {
	for _, c := range [...]struct{ had, want weir.TurnLimit }{
		{weir.TurnLimit{}, weir.TurnLimit{Time: 2 * time.Millisecond}},
		{weir.TurnLimit{Time: time.Second}, weir.TurnLimit{Time: time.Second}},
		{weir.TurnLimit{Calls: 3}, weir.TurnLimit{Calls: 3}},
	} {
		loop, err := weir.NewLoop()
		if err != nil {
			t.Fatal(err)
		}
		if err := loop.SetTurnLimit(c.had); err != nil {
			t.Fatal(err)
		}
		ctx := gtest.New()
		g, err := glib.Attach(loop, glib.WithContext(ctx.Pointer()))
		if err != nil {
			t.Skip(err)
		}
		if got := loop.TurnLimit(); got != c.want {
			t.Errorf("the limit was %+v and is %+v, want %+v", c.had, got, c.want)
		}
		g.Close()
		_ = loop.Close()
		ctx.Free()
	}
}

// TestNested: a main loop inside a callback of the weir loop gets everything but weir, and
// one inside Idle gets weir too.
func TestNested(t *testing.T) {
	g := attach(t)
	ticks, inside, done := 0, false, false
	g.ctx.Timeout(1, func() bool { ticks++; return true })
	g.loop.Soon(func() {
		inside = true
		g.loop.Soon(func() {
			if inside {
				t.Error("a turn ran inside a turn")
			}
		})
		began := ticks
		g.ctx.Until(func() bool { return ticks >= began+5 })
		inside = false
		g.Idle(func() {
			fired := false
			g.loop.After(time.Millisecond, func() { fired = true })
			g.ctx.Until(func() bool { return fired })
			done = true
		})
	})
	g.ctx.Until(func() bool { return done })
}

// TestPriorityRange: a priority outside GLib's range is refused.
func TestPriorityRange(t *testing.T) {
	loop, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	if loop.PollFD() < 0 {
		t.Skip(weir.ErrNoPollFD)
	}
	for _, p := range []int{-101, 301} {
		if g, err := glib.Attach(loop, glib.WithPriority(p)); err == nil {
			g.Close()
			t.Errorf("priority %d was taken", p)
		}
	}
}
