package contract

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// loopMaker makes a loop with options; on the simulator a host's.
type loopMaker func(opts ...weir.LoopOption) *weir.Loop

// onEveryLoop runs a test on each backend of this machine and on the simulator.
func onEveryLoop(t *testing.T, f func(t *testing.T, make loopMaker)) {
	t.Helper()
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			skipRefused(t, name)
			f(t, func(opts ...weir.LoopOption) *weir.Loop {
				l := newLoop(t, append([]weir.LoopOption{weir.WithBackendName(name), weir.WithLogger(discard())}, opts...)...)
				t.Cleanup(func() { l.Close() })
				return l
			})
		})
	}
	t.Run("sim", func(t *testing.T) {
		f(t, func(opts ...weir.LoopOption) *weir.Loop {
			return weirtest.NewSim(t, 1).Host("a").NewLoop(opts...) // a world for each
		})
	})
}

// skipRefused skips backends that the system refuses or WEIR_BACKEND leaves out.
func skipRefused(t *testing.T, name string) {
	t.Helper()
	if asked := os.Getenv("WEIR_BACKEND"); asked != "" && asked != name {
		t.Skip("WEIR_BACKEND asks for ", asked)
	}
	l, err := weir.NewLoop(weir.WithBackendName(name))
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if l.Backend().Name != name {
		t.Skip("refused by the system")
	}
}

// runLoop runs l until its callbacks stop it, with a bound.
func runLoop(t *testing.T, l *weir.Loop) {
	t.Helper()
	late := l.After(20*time.Second, func() { t.Error("nobody stopped the loop"); l.Stop() })
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	late.Stop()
}

func TestLoopTurns(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		t.Run("1 a callback's callback runs in the next turn", func(t *testing.T) {
			l := mk()
			var trace []string
			l.Soon(func() {
				trace = append(trace, "a")
				l.Soon(func() { trace = append(trace, "c") })
			})
			l.Soon(func() { trace = append(trace, "b") })
			for range 2 {
				if err := l.Turn(0); err != nil {
					t.Fatal(err)
				}
				trace = append(trace, "|")
			}
			if got := strings.Join(trace, ""); got != "ab|c|" {
				t.Errorf("the turns were %s", got)
			}
		})
		t.Run("2 a callback that re-posts itself starves no one", func(t *testing.T) {
			l := mk()
			if l.Backend().Name == "sim" {
				t.Skip("the simulated clock stands still while a callback is queued (91)")
			}
			var again func()
			turns := 0
			again = func() { turns++; l.Soon(again) }
			again()
			echoed, timer := false, false
			connectEcho(t, l, func() { echoed = true })
			l.After(time.Millisecond, func() { timer = true })
			for i := 0; !(echoed && timer); i++ {
				if i > 1_000_000 {
					t.Fatalf("echo %v, timer %v after a million turns", echoed, timer)
				}
				if err := l.Turn(time.Second); err != nil {
					t.Fatal(err)
				}
			}
			if turns < 2 {
				t.Error("it did not run")
			}
		})
		t.Run("3 stop with callbacks queued", func(t *testing.T) {
			l := mk()
			var trace []string
			l.Soon(func() {
				l.Stop()
				trace = append(trace, "a")
				l.Soon(func() { trace = append(trace, "later"); l.Stop() })
			})
			l.Soon(func() { trace = append(trace, "b") })
			runLoop(t, l)
			if got := strings.Join(trace, " "); got != "a b" {
				t.Errorf("the first run: %s", got)
			}
			runLoop(t, l)
			if got := strings.Join(trace, " "); got != "a b later" {
				t.Errorf("both runs: %s", got)
			}
		})
		t.Run("4 Stop before Run", func(t *testing.T) {
			l := mk()
			turns := 0
			var again func()
			again = func() { turns++; l.Soon(again) }
			l.Soon(again)
			l.Stop()
			if err := l.Run(); err != nil {
				t.Fatal(err)
			}
			if turns != 1 {
				t.Errorf("%d turns", turns)
			}
			l.Stop()
			if err := l.Run(); err != nil { // the wait must not wait either
				t.Fatal(err)
			}
		})
		t.Run("4 Stop before Turn", func(t *testing.T) {
			l := mk()
			l.Stop()
			if d, ok := l.Next(); d != 0 || !ok {
				t.Errorf("a host may wait for %v, %v", d, ok)
			}
			if err := l.Turn(-1); err != nil { // must not wait
				t.Fatal(err)
			}
			// A host that relies on Next would otherwise spin (G9).
			if d, ok := l.Next(); ok {
				t.Errorf("after the turn there is something to do in %v", d)
			}
			l.After(time.Hour, func() {})
			if d, ok := l.Next(); d <= 0 || !ok {
				t.Errorf("a host may wait for %v, %v", d, ok)
			}
		})
		t.Run("5 close and run at wrong times", func(t *testing.T) {
			l := mk()
			l.Soon(func() {
				if err := l.Close(); !errors.Is(err, weir.ErrLoopRunning) {
					t.Errorf("Close while running: %v", err)
				}
				if err := l.Run(); !errors.Is(err, weir.ErrLoopRunning) {
					t.Errorf("Run inside Run: %v", err)
				}
				if err := l.Turn(0); !errors.Is(err, weir.ErrLoopRunning) {
					t.Errorf("Turn inside Run: %v", err)
				}
				l.Stop()
			})
			runLoop(t, l)
			for range 2 {
				if err := l.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			if err := l.Run(); !errors.Is(err, weir.ErrLoopClosed) {
				t.Errorf("Run after Close: %v", err)
			}
			if _, err := l.Listen("tcp", "127.0.0.1:0", nil); !errors.Is(err, weir.ErrLoopClosed) {
				t.Errorf("Listen after Close: %v", err)
			}
			if _, err := l.Post(func() {}); !errors.Is(err, weir.ErrLoopClosed) {
				t.Errorf("Post after Close: %v (16)", err)
			}
		})
		t.Run("6 a canceled callback that was queued does not run", func(t *testing.T) {
			l := mk()
			ran := false
			var c, p *weir.Call
			l.Soon(func() {
				if !c.Cancel() || c.Cancel() || !p.Cancel() {
					t.Error("Cancel reports the wrong thing")
				}
			})
			c = l.Soon(func() { ran = true })
			p, _ = l.Post(func() { ran = true })
			for range 3 {
				if err := l.Turn(0); err != nil {
					t.Fatal(err)
				}
			}
			if ran {
				t.Error("it ran")
			}
			done := l.Soon(func() {})
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			if done.Cancel() {
				t.Error("Cancel of a callback that ran reports true")
			}
		})
		t.Run("6 a tenant's callbacks are canceled together (R23)", func(t *testing.T) {
			l := mk()
			ran := 0
			tn := l.NewTenant("tenant")
			tn.Soon(func() { ran++ })
			tn.After(time.Microsecond, func() { ran++ })
			if _, err := tn.Post(func() { ran++ }); err != nil {
				t.Fatal(err)
			}
			tn.Close(nil)
			tn.Soon(func() { ran++ })
			if _, err := tn.Post(func() { ran++ }); !errors.Is(err, weir.ErrClosed) {
				t.Errorf("Post after Close: %v", err)
			}
			others := false
			l.After(2*time.Millisecond, func() { others = true; l.Stop() })
			runLoop(t, l)
			if ran != 0 || !others {
				t.Errorf("%d of the tenant's ran, others %v", ran, others)
			}
		})
		t.Run("7 the handler of failures panics", func(t *testing.T) {
			calls := 0
			l := mk(weir.WithErrorHandler(func(error) { calls++; panic("handler") }))
			l.Soon(func() { panic("callback") })
			after := false
			l.After(time.Microsecond, func() { panic("timer") })
			l.After(time.Millisecond, func() { after = true; l.Stop() })
			runLoop(t, l)
			if calls != 2 || !after {
				t.Errorf("the handler was called %d times, the loop goes on: %v", calls, after)
			}
		})
		t.Run("9 close with connections open, one of which panics", func(t *testing.T) {
			l := mk()
			var lost []error
			mkProto := func(weir.Transport) weir.Protocol {
				return &lastWords{lost: func(err error) { lost = append(lost, err); panic("at the end") }}
			}
			ln, err := l.Listen("tcp", "127.0.0.1:0", mkProto)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				l.Connect("tcp", ln.Addr().String(), mkProto(nil))
			}
			for i := 0; l.Connections() < 6; i++ {
				if i > 10_000 {
					t.Fatalf("%d connections", l.Connections())
				}
				if err := l.Turn(10 * time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if len(lost) != 6 {
				t.Errorf("%d of 6 were told", len(lost))
			}
			for _, err := range lost {
				if !errors.Is(err, weir.ErrLoopClosed) {
					t.Errorf("lost with %v", err)
				}
			}
		})
		t.Run("16 accepted posts that never ran are reported", func(t *testing.T) {
			var reported error
			l := mk(weir.WithErrorHandler(func(err error) { reported = err }))
			for range 3 {
				if _, err := l.Post(func() { t.Error("ran") }); err != nil {
					t.Fatal(err)
				}
			}
			c, _ := l.Post(func() { t.Error("ran") })
			c.Cancel()
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			var d *weir.DroppedError
			if !errors.As(reported, &d) || d.Callbacks != 3 {
				t.Errorf("reported: %v", reported)
			}
		})
	})
}

// lastWords is a protocol that is only told of its end.
type lastWords struct {
	weir.NopProtocol
	lost func(error)
}

func (p *lastWords) ConnectionLost(err error)             { p.lost(err) }
func (p *lastWords) EOFReceived(unused int) (bool, error) { return false, nil }

// connectEcho connects a client to an echo on l and calls done when a byte has
// come back.
func connectEcho(t *testing.T, l *weir.Loop, done func()) {
	t.Helper()
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
	if err != nil {
		t.Fatal(err)
	}
	l.Connect("tcp", ln.Addr().String(), &asker{done: done})
}

type asker struct {
	weir.NopProtocol
	done func()
}

func (p *asker) ConnectionMade(t weir.Transport)    { _, _ = t.Write([]byte("?")) }
func (p *asker) DataReceived(b []byte) (int, error) { p.done(); return len(b), nil }

func TestLoopPosts(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			skipRefused(t, name)
			mk := func(opts ...weir.LoopOption) *weir.Loop {
				l := newLoop(t, append(opts, weir.WithBackendName(name))...)
				t.Cleanup(func() { l.Close() })
				return l
			}
			t.Run("15 a post wakes a loop that waits", func(t *testing.T) {
				l := mk()
				var wg sync.WaitGroup
				ready := make(chan struct{})
				wg.Go(func() {
					<-ready
					for i := range 100 { // each may find the loop asleep
						done := make(chan struct{})
						if _, err := l.Post(func() { close(done) }); err != nil {
							t.Errorf("post %d: %v", i, err)
							return
						}
						<-done
					}
					l.Stop()
				})
				l.Soon(func() { close(ready) })
				runLoop(t, l)
				wg.Wait()
			})
			t.Run("15 a million posts while it is busy", func(t *testing.T) {
				l := mk()
				const posters, each = 4, 250_000
				next := [posters]int{}
				ran := 0
				var wg sync.WaitGroup
				for g := range posters {
					wg.Go(func() {
						for i := range each {
							if _, err := l.Post(func() {
								if next[g] != i {
									t.Errorf("poster %d: post %d came instead of %d", g, i, next[g])
								}
								next[g]++
								if ran++; ran == posters*each {
									l.Stop()
								}
							}); err != nil {
								t.Error(err)
								return
							}
						}
					})
				}
				runLoop(t, l)
				wg.Wait()
				if ran != posters*each {
					t.Errorf("%d of %d ran", ran, posters*each)
				}
			})
			t.Run("16 posts race with Close", func(t *testing.T) {
				dropped := 0
				l := mk(weir.WithErrorHandler(func(err error) {
					var d *weir.DroppedError
					if errors.As(err, &d) {
						dropped = d.Callbacks
					}
				}))
				// At most this many wait at a time: a goroutine that posts faster than the
				// loop runs would fill the memory. Close has no such help.
				const backlog = 1000
				accepted := 0
				var ran atomic.Int64
				var closing atomic.Bool
				var wg sync.WaitGroup
				wg.Go(func() {
					for {
						for int64(accepted)-ran.Load() > backlog && !closing.Load() {
							runtime.Gosched()
						}
						if _, err := l.Post(func() { ran.Add(1) }); err != nil {
							if !errors.Is(err, weir.ErrLoopClosed) {
								t.Error(err)
							}
							return
						}
						accepted++
					}
				})
				for range 20 {
					if err := l.Turn(time.Millisecond); err != nil {
						t.Fatal(err)
					}
				}
				closing.Store(true)
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				wg.Wait()
				if n := int(ran.Load()); n+dropped != accepted {
					t.Errorf("%d accepted, %d ran, %d reported as dropped", accepted, n, dropped)
				}
			})
			t.Run("17 the wrong goroutine in debug mode", func(t *testing.T) {
				l := mk(weir.WithDebug(time.Hour), weir.WithErrorHandler(func(error) {}), weir.WithLogger(discard()))
				done := make(chan error)
				l.Soon(func() {
					go func() {
						_, err := l.Listen("tcp", "127.0.0.1:0", nil)
						done <- err
					}()
				})
				var err error
				go func() { err = <-done; l.Stop() }()
				runLoop(t, l)
				var g *weir.GoroutineError
				if !errors.As(err, &g) || g.Method != "Listen" || g.Caller == g.Loop || g.Caller == 0 || g.Loop == 0 {
					t.Fatalf("Listen: %v", err)
				}
				if text := err.Error(); !strings.Contains(text, fmt.Sprint(g.Caller)) || !strings.Contains(text, fmt.Sprint(g.Loop)) {
					t.Errorf("it does not name both: %s", text)
				}
			})
			t.Run("R62 slow callbacks and unclosed transports", func(t *testing.T) {
				var reported []error
				l := mk(weir.WithDebug(time.Nanosecond), weir.WithErrorHandler(func(err error) { reported = append(reported, err) }), weir.WithLogger(discard()))
				echoed := false
				connectEcho(t, l, func() { echoed = true; l.Stop() })
				runLoop(t, l)
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				var slow *weir.SlowError
				var unclosed *weir.UnclosedError
				if err := errors.Join(reported...); !echoed || !errors.As(err, &slow) || !errors.As(err, &unclosed) || len(unclosed.Stack) == 0 {
					t.Errorf("reported: %v", err)
				}
			})
		})
	}
}

func TestTimers(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		t.Run("10 negative and endless delays", func(t *testing.T) {
			l := mk()
			l.After(290*365*24*time.Hour, func() { t.Error("centuries have passed") })
			l.After(1<<63-1, func() { t.Error("the end of time") })
			l.At(time.Unix(1<<40, 0), func() { t.Error("far away") })
			if d, ok := l.Next(); !ok || d < 200*365*24*time.Hour {
				t.Errorf("the loop waits for %v, %v", d, ok)
			}
			ran := 0
			l.After(-time.Hour, func() { ran++ })
			l.After(-1<<63, func() { ran++ })
			l.After(0, func() { ran++ })
			l.After(2*time.Millisecond, l.Stop)
			runLoop(t, l)
			if ran != 3 {
				t.Errorf("%d of 3 ran", ran)
			}
		})
		t.Run("11 a timer stops another due in the same turn", func(t *testing.T) {
			l := mk()
			at := l.Now().Add(time.Millisecond)
			var second *weir.Timer
			l.At(at, func() {
				if !second.Stop() {
					t.Error("Stop of a timer that is due reports false")
				}
				if second.Stop() {
					t.Error("Stop again reports true")
				}
			})
			second = l.At(at, func() { t.Error("the stopped one fired") })
			l.At(at.Add(time.Millisecond), l.Stop)
			runLoop(t, l)
		})
		t.Run("G5 equal deadlines fire in the order they were set, none early", func(t *testing.T) {
			l := mk()
			at := l.Now().Add(2 * time.Millisecond)
			var order []int
			var timers []*weir.Timer
			for i := range 1000 {
				timers = append(timers, l.NewTimer(func() {
					if l.Now().Before(at) {
						t.Errorf("timer %d fired %v early", i, at.Sub(l.Now()))
					}
					order = append(order, i)
				}))
			}
			for _, i := range []int{5, 4, 3} { // set again: it counts from then
				timers[i].SetAt(at)
			}
			var want []int
			for i, tm := range timers {
				tm.SetAt(at)
				want = append(want, i)
			}
			timers[7].SetAt(at.Add(time.Microsecond))
			timers[7].SetAt(at) // after all others now
			want = append(slices.Delete(want, 7, 8), 7)
			l.At(at.Add(time.Millisecond), l.Stop)
			runLoop(t, l)
			if !slices.Equal(order, want) {
				t.Errorf("%d fired, order %v…", len(order), order[:min(20, len(order))])
			}
		})
		t.Run("12 a million timers set and stopped", func(t *testing.T) {
			l := mk()
			heap := func() uint64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			before := heap()
			func() {
				ts := make([]*weir.Timer, 1_000_000)
				for i := range ts {
					ts[i] = l.After(time.Hour+time.Duration(i*7919%1000), func() { t.Error("fired") })
				}
				for _, tm := range ts {
					if !tm.Stop() {
						t.Fatal("it was not set")
					}
				}
			}()
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			if after := heap(); after > before+40<<20 {
				t.Errorf("the heap grew by %d MiB", (after-before)>>20)
			}
			if _, ok := l.Next(); ok {
				t.Error("a timer is left")
			}
		})
		t.Run("13 a timer that sets itself again keeps its place", func(t *testing.T) {
			l := mk()
			start := l.Now()
			n := 0
			var due []time.Duration
			var tm *weir.Timer
			tm = l.NewTimer(func() {
				due = append(due, l.Now().Sub(start))
				if n++; n == 5 {
					l.Stop()
					return
				}
				tm.Again()
			})
			tm.Set(2 * time.Millisecond)
			runLoop(t, l)
			for i, d := range due {
				// Each is counted from the moment the one before was due.
				if want := time.Duration(i+1) * 2 * time.Millisecond; d < want-time.Microsecond {
					t.Errorf("tick %d came after %v, early", i, d)
				}
			}
		})
		t.Run("13 stop, start, again, interval (R17)", func(t *testing.T) {
			l := mk()
			n := 0
			tm := l.NewTimer(func() { n++ })
			tm.Set(time.Millisecond)
			if tm.Start() || !tm.Running() || tm.Interval() != time.Millisecond {
				t.Error("a running timer was started")
			}
			if !tm.Stop() || tm.Stop() || tm.Running() {
				t.Error("Stop reports the wrong thing")
			}
			if !tm.Start() || !tm.Running() {
				t.Error("Start of a stopped timer reports false")
			}
			l.After(5*time.Millisecond, l.Stop)
			runLoop(t, l)
			if n != 1 || tm.Running() || tm.Stop() {
				t.Errorf("fired %d times", n)
			}
		})
		t.Run("14 delay 0 set again runs once per turn", func(t *testing.T) {
			l := mk()
			n := 0
			var tm *weir.Timer
			tm = l.NewTimer(func() { n++; tm.Set(0) })
			tm.Set(0)
			for i := 1; i <= 10; i++ {
				if err := l.Turn(0); err != nil {
					t.Fatal(err)
				}
				if n != i {
					t.Fatalf("%d runs in %d turns", n, i)
				}
			}
			tm.Stop()
		})
	})
	t.Run("13 a timer that sets itself again is counted from when it was due", func(t *testing.T) {
		s := weirtest.NewSim(t, 1)
		l := s.Host("a").Loop()
		start := l.Now()
		var at []time.Duration
		var tm *weir.Timer
		tm = l.NewTimer(func() {
			at = append(at, l.Now().Sub(start))
			switch len(at) {
			case 2:
				s.Stall(3 * time.Millisecond) // the next one is late
			case 5:
				return
			}
			tm.Again()
		})
		tm.Set(10 * time.Millisecond)
		if err := s.RunFor(time.Second); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(at); got != "[10ms 20ms 33ms 40ms 50ms]" {
			t.Error(got)
		}
	})
	t.Run("13 a repeating timer that overruns skips and stays in phase", func(t *testing.T) {
		s := weirtest.NewSim(t, 1)
		l := s.Host("a").Loop()
		start := l.Now()
		var at []time.Duration
		rep := l.NewTimer(func() {
			at = append(at, l.Now().Sub(start))
			if len(at) == 2 {
				s.Stall(35 * time.Millisecond)
			}
		})
		rep.Repeat(10 * time.Millisecond)
		if err := s.RunFor(100 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		rep.Stop()
		// Two ticks, a stall over the ticks at 30 to 50 that reaches into the time of
		// 60's, then in phase again.
		for i, d := range at {
			if i > 0 && d <= at[i-1] {
				t.Errorf("ticks %v", at)
			}
			if i > 2 && d%(10*time.Millisecond) != 0 {
				t.Errorf("out of phase: %v", at)
			}
		}
		if len(at) < 5 || len(at) > 8 {
			t.Errorf("ticks %v", at)
		}
	})
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }
