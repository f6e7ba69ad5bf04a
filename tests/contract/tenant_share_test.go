package contract

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// poster is a tenant that always has some callbacks queued.
type poster struct {
	tn  *weir.Tenant
	ran int
	run func()
}

// flood keeps n callbacks of a tenant queued; each does work.
func flood(tn *weir.Tenant, n int, work func()) *poster {
	p := &poster{tn: tn}
	p.run = func() {
		p.ran++
		work()
		tn.Soon(p.run)
	}
	for range n {
		tn.Soon(p.run)
	}
	return p
}

func share(t *testing.T, tn *weir.Tenant, n int) *weir.Tenant {
	t.Helper()
	if err := tn.SetShare(n); err != nil {
		t.Fatal(err)
	}
	return tn
}

// TestSharesExact: in a simulated world tenants get callbacks exactly as their shares say,
// however many each has queued, and nested ones exactly their part of that (R69).
func TestSharesExact(t *testing.T) {
	for _, queued := range [][3]int{{1, 1, 1}, {1, 10, 100}, {100, 10, 1}, {500, 500, 500}} {
		t.Run(fmt.Sprint(queued), func(t *testing.T) {
			sim := weirtest.NewSim(t, 1)
			l := sim.Host("one").Loop()
			const rounds = 1000
			var all [3]*poster
			for i := range all {
				all[i] = flood(share(t, l.NewTenant("t"), 3-i), queued[i], func() {})
			}
			sim.Until("the rounds", func() bool { return all[0].ran+all[1].ran+all[2].ran >= 6*rounds })
			total := all[0].ran + all[1].ran + all[2].ran
			for i, p := range all {
				want := total * (3 - i) / 6
				if p.ran < want-1 || p.ran > want+1 {
					t.Errorf("share %d ran %d of %d callbacks, want %d", 3-i, p.ran, total, want)
				}
				if n := p.tn.Stats().Callbacks; n != uint64(p.ran) {
					t.Errorf("Stats counts %d callbacks, there were %d", n, p.ran)
				}
				p.tn.Close(nil)
			}
		})
	}
	t.Run("nested", func(t *testing.T) {
		sim := weirtest.NewSim(t, 1)
		l := sim.Host("one").Loop()
		outer, other := share(t, l.NewTenant("outer"), 2), share(t, l.NewTenant("other"), 1)
		parts := []struct {
			p    *poster
			part int // of 60
		}{
			{flood(outer, 3, func() {}), 10}, // itself counts as a share of 1
			{flood(share(t, outer.NewTenant("a"), 2), 1, func() {}), 20},
			{flood(share(t, outer.NewTenant("b"), 1), 50, func() {}), 10},
			{flood(other, 7, func() {}), 20},
		}
		total := func() (n int) {
			for _, x := range parts {
				n += x.p.ran
			}
			return n
		}
		sim.Until("the rounds", func() bool { return total() >= 6000 })
		for i, x := range parts {
			want := total() * x.part / 60
			if x.p.ran < want-2 || x.p.ran > want+2 {
				t.Errorf("%d: ran %d of %d callbacks, want %d", i, x.p.ran, total(), want)
			}
		}
		if got, want := outer.Stats().Callbacks, uint64(parts[0].p.ran+parts[1].p.ran+parts[2].p.ran); got != want {
			t.Errorf("the outer tenant counts %d callbacks, want %d", got, want)
		}
		outer.Close(nil)
		other.Close(nil)
	})
}

// TestShareRange: a share out of range is refused and changes nothing.
func TestShareRange(t *testing.T) {
	l := newLoop(t)
	defer l.Close()
	tn := l.NewTenant("one")
	var bad *weir.OptionError
	for _, n := range []int{-1, 0, 10_001} {
		if err := tn.SetShare(n); !errors.As(err, &bad) || tn.Share() != 1 {
			t.Errorf("SetShare(%d): %v, the share is %d", n, err, tn.Share())
		}
	}
	if err := tn.SetLimits(weir.TenantLimits{Buffered: -1}); !errors.As(err, &bad) {
		t.Errorf("a limit below 0: %v", err)
	}
	if err := tn.SetShare(10_000); err != nil || tn.Share() != 10_000 {
		t.Errorf("SetShare(10000): %v, the share is %d", err, tn.Share())
	}
}

// spin keeps the processor busy for about d.
func spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

// lag checks that tenants that always have something to do are never further apart than
// two callbacks, counted as their shares say.
type lag struct {
	tenants []*weir.Tenant
	before  []time.Duration
	longest []float64 // the most time in a turn, over the share: no callback took longer
}

func (g *lag) look() {
	if g.before == nil {
		g.before, g.longest = make([]time.Duration, len(g.tenants)), make([]float64, len(g.tenants))
	}
	for i, tn := range g.tenants {
		d := tn.Stats().Time - g.before[i]
		g.before[i] += d
		g.longest[i] = max(g.longest[i], float64(d)/float64(tn.Share()))
	}
}

func (g *lag) check(t *testing.T) {
	t.Helper()
	for i, a := range g.tenants {
		for j, b := range g.tenants {
			x, y := float64(a.Stats().Time)/float64(a.Share()), float64(b.Stats().Time)/float64(b.Share())
			if x-y > g.longest[i]+g.longest[j] {
				t.Errorf("share %d is %v ahead of share %d, one turn was %v at most", a.Share(), time.Duration(x-y), b.Share(), time.Duration(g.longest[i]+g.longest[j]))
			}
		}
	}
}

// TestSharesTime: on a real loop shares are of time, not of callbacks: a tenant whose
// callbacks take ten times as long gets no more time for it (R69).
func TestSharesTime(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		g := &lag{}
		for i, d := range [...]time.Duration{20 * time.Microsecond, 200 * time.Microsecond, 50 * time.Microsecond} {
			tn := share(t, l.NewTenant("t"), 3-i)
			defer tn.Close(nil)
			g.tenants = append(g.tenants, tn)
			flood(tn, 1+50*i, func() { spin(d) })
		}
		for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			g.look()
			g.check(t)
		}
		for _, tn := range g.tenants {
			t.Log(tn.Share(), tn.Stats().Time)
		}
	})
}

// TestShareDelay: a tenant that floods delays another's event by the rest of a turn and one
// callback of its own: the bound of SetShare (R69, G8).
func TestShareDelay(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		const floods = 4
		ran := make([]*poster, floods)
		for i := range ran {
			tn := share(t, l.NewTenant("flood"), 100)
			defer tn.Close(nil)
			ran[i] = flood(tn, 1000, func() {})
		}
		quiet := share(t, l.NewTenant("quiet"), 100)
		defer quiet.Close(nil)
		for i := range 200 {
			used := quiet.Stats().Time
			var before [floods]int
			var posted, done bool
			l.Soon(func() { // of no tenant: before all of them
				for i, p := range ran {
					before[i] = p.ran
				}
				posted = true
				quiet.Soon(func() {
					done = true
					for i, p := range ran {
						// What was left of the turn may be all of one.
						if n := p.ran - before[i]; n > 256+1 {
							t.Errorf("%d callbacks of flood %d came first", n, i)
						}
					}
				})
			})
			for n := 0; !done; n++ {
				if n > 3 {
					t.Fatalf("round %d: not run after %d turns, posted %v", i, n, posted)
				}
				if err := l.Turn(0); err != nil {
					t.Fatal(err)
				}
			}
			// However long the system held it up, it has not had more than its share when the
			// others have had as much.
			used = quiet.Stats().Time - used
			for _, p := range ran {
				for until := p.tn.Stats().Time + used; p.tn.Stats().Time < until; {
					if err := l.Turn(0); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

// TestShareTurn: however often a turn looks for I/O, because a timer is due or because a
// limit has it take results in steps, it runs no more callbacks of tenants than one look
// allows (R69, G8).
func TestShareTurn(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		const conns, most = 100, 256
		tn := share(t, l.NewTenant("flood"), 1)
		defer tn.Close(nil)
		p := flood(tn, 2*most, func() {})
		open, got, due := 0, 0, 0
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			open++
			return weir.DataFunc(func(p []byte) (int, error) { got += len(p); return len(p), nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		peers := dial(t, ln.Addr(), conns)
		turns(t, l, "the connections", func() bool { return open == conns })
		for _, limit := range [...]weir.TurnLimit{{}, {Calls: 1 << 20}} {
			if err := l.SetTurnLimit(limit); err != nil {
				t.Fatal(err)
			}
			for range 10 {
				want := got + conns
				for _, c := range peers {
					if _, err := c.Write([]byte("x")); err != nil {
						t.Fatal(err)
					}
				}
				l.After(0, func() { due++ })
				for n := 0; got < want; n++ {
					had := p.ran
					if err := l.Turn(0); err != nil {
						t.Fatal(err)
					}
					if n := p.ran - had; n == 0 || n > most {
						t.Fatalf("%+v: %d callbacks of the tenant in a turn", limit, n)
					}
					if n > 10_000 {
						t.Fatalf("%+v: %d of %d bytes after %d turns", limit, got, want, n)
					}
				}
			}
		}
		if due != 20 {
			t.Errorf("%d of 20 timers", due)
		}
		for _, c := range peers {
			_ = c.Close()
		}
	})
}

// waker is a source that always has something more.
type waker struct {
	wake func()
	ran  int
}

func (s *waker) Attach(wake func()) error { s.wake = wake; wake(); return nil }
func (s *waker) Dispatch()                { s.ran++; s.wake() }
func (s *waker) Detach()                  {}

// TestShareSource: what a tenant's source hands over is dealt and counted as its callbacks
// are (R69).
func TestShareSource(t *testing.T) {
	sim := weirtest.NewSim(t, 1)
	l := sim.Host("one").Loop()
	one, other := share(t, l.NewTenant("one"), 1), share(t, l.NewTenant("other"), 3)
	s := &waker{}
	if err := one.AddSource(s); err != nil {
		t.Fatal(err)
	}
	p := flood(other, 1000, func() {})
	sim.Until("the rounds", func() bool { return s.ran+p.ran >= 4000 })
	if total := s.ran + p.ran; s.ran < total/4-1 || s.ran > total/4+1 {
		t.Errorf("the source ran %d times of %d, want a quarter", s.ran, total)
	}
	if n := one.Stats().Callbacks; n != uint64(s.ran) {
		t.Errorf("Stats counts %d callbacks, there were %d", n, s.ran)
	}
	one.Close(nil)
	had := s.ran
	other.Close(nil)
	if err := sim.Run(nil); err != nil {
		t.Fatal(err)
	}
	if s.ran != had {
		t.Error("the source of a closed tenant ran")
	}
}

// sink counts the bytes of a connection, and takes its time.
type sink struct {
	weir.NopProtocol
	got  int
	work func(n int)
}

func (s *sink) DataReceived(p []byte) (int, error) {
	s.got += len(p)
	if s.work != nil {
		s.work(len(p))
	}
	return len(p), nil
}

// pump writes without end.
type pump struct {
	weir.NopProtocol
	t     weir.Transport
	piece []byte
}

func (p *pump) ConnectionMade(t weir.Transport) { p.t = t; p.WriteDrained() }
func (p *pump) WriteDrained()                   { _, _ = p.t.Write(p.piece) }
func (p *pump) PauseWriting()                   {}
func (p *pump) ResumeWriting()                  {}

// TestShareConnections: the bytes of connections are dealt too. A tenant with many
// connections that flood, and another with one, get the same for the same share (R69).
func TestShareConnections(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		g := &lag{}
		made := 0
		for i, name := range [...]string{"many", "one"} {
			tn := share(t, l.NewTenant(name), 1)
			defer tn.Close(nil)
			g.tenants = append(g.tenants, tn)
			ln, err := l.Listen("unix", filepath.Join(t.TempDir(), "s"), func(weir.Transport) weir.Protocol {
				made++
				return &sink{work: func(int) { spin(50 * time.Microsecond) }}
			}, weir.WithTenant(tn))
			if err != nil {
				t.Fatal(err)
			}
			for range [...]int{20, 1}[i] {
				l.Connect("unix", ln.Addr().String(), &pump{piece: make([]byte, 256<<10)})
			}
		}
		turns(t, l, "the connections", func() bool { return made == 21 })
		at := [2]time.Duration{g.tenants[0].Stats().Time, g.tenants[1].Stats().Time}
		for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
			g.look()
		}
		many, one := g.tenants[0].Stats(), g.tenants[1].Stats()
		t.Logf("many %v (%d callbacks, %d bytes), one %v (%d, %d)", many.Time-at[0], many.Callbacks, many.BytesIn, one.Time-at[1], one.Callbacks, one.BytesIn)
		if l.Backend().Name != "portable" { // there a goroutine has to run before the loop knows that there is more
			g.check(t)
		}
	})
}

// numbers checks that bytes come in order and whole, and closes when it has all of them.
type numbers struct {
	weir.NopProtocol
	t    *testing.T
	tr   weir.Transport
	size int
	next int
	work func()
	lost int
}

func (p *numbers) DataReceived(b []byte) (int, error) {
	p.work()
	n := max(1, len(b)*2/3) // the rest is offered again
	for _, c := range b[:n] {
		if c != byte(p.next%251) {
			p.t.Fatalf("byte %d is %d", p.next, c)
		}
		p.next++
	}
	if p.next == p.size {
		_ = p.tr.Close()
	}
	return n, nil
}

func (p *numbers) ConnectionMade(t weir.Transport) { p.tr = t }

func (p *numbers) ConnectionLost(err error) {
	if p.lost++; err != nil {
		p.t.Errorf("after %d bytes: %v", p.next, err)
	}
}

// TestShareParked: what waits for its tenant's turn arrives whole and in order, also when
// nothing comes after it (R69, G2).
func TestShareParked(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		const conns, size = 16, 300_000
		greedy, other := share(t, l.NewTenant("greedy"), 1), share(t, l.NewTenant("other"), 1)
		defer greedy.Close(nil)
		defer other.Close(nil)
		var all []*numbers
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			p := &numbers{t: t, size: size, work: func() { spin(20 * time.Microsecond) }}
			all = append(all, p)
			return p
		}, weir.WithTenant(greedy))
		if err != nil {
			t.Fatal(err)
		}
		piece := make([]byte, size)
		for i := range piece {
			piece[i] = byte(i % 251)
		}
		for range conns {
			l.Connect("tcp", ln.Addr().String(), &sendOnce{piece: piece})
		}
		flood(other, 3, func() { spin(10 * time.Microsecond) })
		turns(t, l, "all ends", func() bool {
			n := 0
			for _, p := range all {
				n += p.lost
			}
			return n == conns
		})
		for i, p := range all {
			if p.next != size {
				t.Errorf("connection %d got %d bytes of %d", i, p.next, size)
			}
		}
	})
}

// sendOnce sends a piece.
type sendOnce struct {
	weir.NopProtocol
	piece []byte
}

func (p *sendOnce) ConnectionMade(t weir.Transport) {
	_, _ = t.Write(p.piece)
}

// TestShareGoexit: a callback of a tenant that ends the loop's goroutine loses nothing of
// what was to be dealt after it (behaviour 7).
func TestShareGoexit(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		tn := share(t, l.NewTenant("one"), 1)
		defer tn.Close(nil)
		const conns = 8
		got, made, exits := 0, 0, false
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			made++
			return weir.DataFunc(func(p []byte) (int, error) {
				if got += len(p); exits {
					exits = false
					runtime.Goexit()
				}
				return len(p), nil
			})
		}, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		peers := dial(t, ln.Addr(), conns)
		turns(t, l, "the connections", func() bool { return made == conns })
		for _, c := range peers {
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		ran := 0
		for range 5 {
			tn.Soon(func() { ran++ })
		}
		exits = true
		for exits {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				_ = l.Turn(time.Millisecond) // it does not return
			}()
			<-done
		}
		// The connection whose callback did that is left in the middle of it.
		turns(t, l, "the rest", func() bool { return got == conns && ran == 5 })
	})
}
