package contract

import (
	"bytes"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// TestGuest runs a loop inside a host that only knows callbacks (R24, R66), on every
// backend.
func TestGuest(t *testing.T) {
	onBackends(t, func(t *testing.T, name string) {
		l := newLoop(t, weir.WithBackendName(name), quiet())
		defer l.Close()
		host := make(chan func(), 1)
		stop, err := l.Guest(func(turn func()) { host <- turn })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		// Often: a wake that comes just as the waiting begins must not be lost.
		const rounds = 100
		timers, posts, echoed := 0, 0, false
		var again func()
		again = func() {
			l.After(time.Millisecond, func() {
				timers++
				go l.Post(func() {
					if posts++; posts < rounds {
						again()
					}
				})
			})
		}
		again()
		// Large enough to fill buffers, so that both sides wait for each other.
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<15)
		c := &client{send: sent, eof: true, done: func() { echoed = true }}
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
		if err != nil {
			t.Fatal(err)
		}
		l.Connect("tcp", ln.Addr().String(), c)
		deadline := time.After(20 * time.Second)
		for posts < rounds || !echoed {
			select {
			case turn := <-host:
				turn()
				if posts > timers {
					t.Fatalf("%d posts of %d timers", posts, timers)
				}
			case <-deadline:
				t.Fatalf("%d posts of %d; %d of %d bytes came back", posts, rounds, c.got.Len(), len(sent))
			}
		}
		if !bytes.Equal(c.got.Bytes(), sent) {
			t.Errorf("%d of %d bytes came back", c.got.Len(), len(sent))
		}
	})
}

// TestGuestStirred: what a host's thread does between two turns has the next one come at
// its time, although nothing else happens (R24).
func TestGuestStirred(t *testing.T) {
	onBackends(t, func(t *testing.T, name string) {
		l, host := hosted(t, name)
		var there, here weir.Transport
		got := 0
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(tr weir.Transport) weir.Protocol {
			there = tr
			return weir.DataFunc(func(p []byte) (int, error) { got += len(p); return len(p), nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		tenant, ended := l.NewTenant("one"), false
		tenant.OnClose(func(error) { ended = true })
		host.idle()
		tenant.Close(nil)
		host.until("a tenant's end", func() bool { return ended })
		host.idle()
		fired := false
		l.After(time.Millisecond, func() { fired = true })
		host.until("a timer", func() bool { return fired })
		host.idle()
		soon := false
		l.Soon(func() { soon = true })
		host.until("a call", func() bool { return soon })
		host.idle()
		l.Connect("tcp", ln.Addr().String(), &greeter{made: func(tr weir.Transport) { here = tr }})
		host.until("a connection", func() bool { return there != nil && here != nil })
		host.idle()
		if _, err := here.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		host.until("bytes", func() bool { return got == 5 })
		host.idle()
	})
}

// greeter tells of its connection.
type greeter struct {
	weir.NopProtocol
	made func(weir.Transport)
}

func (g *greeter) ConnectionMade(t weir.Transport) { g.made(t) }

// TestGuestTwice: a host that calls turn once more than it was posted loses nothing by it
// (R24): not the time of a timer that the call before it did not know.
func TestGuestTwice(t *testing.T) {
	onBackends(t, func(t *testing.T, name string) {
		l, host := hosted(t, name)
		host.idle()
		for range 20 {
			// The call that was posted sets a timer; the one that was not comes before it,
			// or after it.
			fired := false
			for _, before := range []bool{true, false} {
				go func() { _, _ = l.Post(func() { l.After(2*time.Millisecond, func() { fired = true }) }) }()
				turn := host.next("a post")
				if before {
					host.last()
				}
				turn()
				if !before {
					turn()
				}
				host.until("the timer", func() bool { return fired })
				fired = false
			}
		}
		host.idle()
	})
}

// host calls the turns of a Guest.
type host struct {
	t     *testing.T
	posts chan func()
	last  func()
}

// hosted makes a loop that is a guest on the test's own thread.
func hosted(t *testing.T, name string) (*weir.Loop, *host) {
	t.Helper()
	runtime.LockOSThread()
	l := newLoop(t, weir.WithBackendName(name), quiet())
	h := &host{t: t, posts: make(chan func(), 1)}
	stop, err := l.Guest(func(turn func()) { h.posts <- turn })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
	return l, h
}

// next returns the next turn.
func (h *host) next(what string) func() {
	h.t.Helper()
	select {
	case h.last = <-h.posts:
	case <-time.After(10 * time.Second):
		h.t.Fatal("no turn comes for ", what)
	}
	return h.last
}

// until calls turns until cond holds.
func (h *host) until(what string, cond func() bool) {
	h.t.Helper()
	for !cond() {
		h.next(what)()
	}
}

// idle calls turns until none comes for a while.
func (h *host) idle() {
	h.t.Helper()
	for range 50 {
		select {
		case h.last = <-h.posts:
			h.last()
		case <-time.After(30 * time.Millisecond):
			return
		}
	}
	h.t.Fatal("turns for nothing, again and again (G9)")
}

// TestWaiter: a waiter returns when there is something to do and is quiet while there
// is not (R66, G9).
func TestWaiter(t *testing.T) {
	onBackends(t, func(t *testing.T, name string) {
		weirtest.CheckLeaks(t)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		l := newLoop(t, weir.WithBackendName(name), quiet())
		w, err := l.NewWaiter()
		if err != nil {
			t.Fatal(err)
		}
		turn := func() {
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		// settled waits until nothing comes for a while.
		settled := func(when string) {
			t.Helper()
			const long = 30 * time.Millisecond
			for range 50 {
				began := time.Now()
				if !w.Wait(long) {
					t.Fatal("stopped")
				}
				if time.Since(began) >= long {
					return
				}
				turn()
			}
			t.Fatalf("%s: turns for nothing, again and again", when)
		}
		// awaited turns until cond holds, each time after a wait of any length.
		awaited := func(what string, cond func() bool) {
			t.Helper()
			for end := time.Now().Add(20 * time.Second); !cond(); turn() {
				d, ok := l.Next()
				if !ok {
					d = 20 * time.Second // a wake that is lost is a failure, not a hang
				}
				if !w.Wait(d) || time.Now().After(end) {
					t.Fatal("waited in vain for", what)
				}
			}
		}
		settled("at first")
		posted := false
		go func() { _, _ = l.Post(func() { posted = true }) }()
		awaited("a post", func() bool { return posted })
		got := 0
		var here weir.Transport
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(tr weir.Transport) weir.Protocol {
			here = tr
			return weir.DataFunc(func(p []byte) (int, error) { got += len(p); return len(p), nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		awaited("a connection", func() bool { return here != nil })
		settled("with a connection")
		if _, err := conn.Write(make([]byte, 300_000)); err != nil {
			t.Fatal(err)
		}
		awaited("bytes", func() bool { return got == 300_000 })
		settled("after bytes")
		// Paused, with bytes that no one reads.
		here.PauseReading()
		turn()
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		settled("while paused")
		here.ResumeReading()
		awaited("the byte", func() bool { return got == 300_001 })

		// A Wait in progress ends with Stop, and another's with Close.
		other, err := l.NewWaiter()
		if err != nil {
			t.Fatal(err)
		}
		for i, end := range []func(){other.Stop, func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}} {
			waiter := []*weir.Waiter{other, w}[i]
			begun, ended := make(chan bool), make(chan bool)
			go func() {
				close(begun)
				for waiter.Wait(-1) {
				}
				close(ended)
			}()
			<-begun
			end()
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Fatal("a Wait goes on after its end")
			}
		}
		if w.Wait(-1) || other.Wait(-1) {
			t.Error("a stopped waiter waited")
		}
		w.Stop()
		if _, err := l.NewWaiter(); !errors.Is(err, weir.ErrLoopClosed) {
			t.Errorf("a waiter for a closed loop: %v", err)
		}
		if _, err := l.Guest(func(func()) { t.Error("a turn of a closed loop") }); !errors.Is(err, weir.ErrLoopClosed) {
			t.Errorf("a guest that is closed: %v", err)
		}
	})
}

// TestTurnLimit: a turn with a limit stops in the middle, and the next goes on there:
// the same callbacks in the same order, and no one starves (R18, R24).
func TestTurnLimit(t *testing.T) {
	onBackends(t, func(t *testing.T, name string) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		l := newLoop(t, weir.WithBackendName(name), quiet())
		defer l.Close()
		limit := func(m weir.TurnLimit) {
			t.Helper()
			if err := l.SetTurnLimit(m); err != nil {
				t.Fatal(err)
			}
		}
		turn := func() {
			t.Helper()
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		var opt *weir.OptionError
		for _, m := range []weir.TurnLimit{{Time: -1}, {Calls: -1}} {
			if err := l.SetTurnLimit(m); !errors.As(err, &opt) {
				t.Errorf("%+v: %v", m, err)
			}
		}

		// Ten callbacks, each of which queues another: 3 a turn, the first ten first.
		limit(weir.TurnLimit{Calls: 3})
		var order []int
		for i := range 10 {
			l.Soon(func() {
				order = append(order, i)
				l.Soon(func() { order = append(order, 10+i) })
			})
		}
		for n := 3; n < 10; n += 3 {
			turn()
			if len(order) != n {
				t.Fatalf("%d callbacks after a turn, want %d", len(order), n)
			}
			if d, ok := l.Next(); d != 0 || !ok {
				t.Fatalf("Next is %v, %t in the middle of a turn", d, ok)
			}
		}
		turns(t, l, "all callbacks", func() bool { return len(order) == 20 })
		for i, v := range order {
			if i != v {
				t.Fatalf("the order is %v", order)
			}
		}
		if _, ok := l.Next(); ok {
			t.Error("there is something left to do")
		}

		// Callbacks of a millisecond and a limit of two: the third would begin too late.
		limit(weir.TurnLimit{Time: 2 * time.Millisecond})
		ran := 0
		for range 20 {
			l.Soon(func() {
				ran++
				for began := time.Now(); time.Since(began) < time.Millisecond; {
				}
			})
		}
		for most := 0; ran < 20; {
			had := ran
			turn()
			if most = ran - had; most > 2 || most == 0 {
				t.Fatalf("%d callbacks of 1 ms in a turn of 2 ms", most)
			}
		}

		// Results of I/O count, and callbacks that queue themselves do not keep them away
		// even if there is room for one call only.
		for _, calls := range []int{1, 4} {
			limit(weir.TurnLimit{})
			const conns = 20
			got, open := 0, 0
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
				open++
				return weir.DataFunc(func(p []byte) (int, error) { got++; return len(p), nil })
			})
			if err != nil {
				t.Fatal(err)
			}
			all := dial(t, ln.Addr(), conns)
			turns(t, l, "connections", func() bool { return open == conns })
			turn()
			limit(weir.TurnLimit{Calls: calls})
			flood := true
			var again func()
			again = func() {
				if flood {
					l.Soon(again)
				}
			}
			l.Soon(again)
			// A timer that is due has the loop look for I/O first, within the limit too.
			tick := l.NewTimer(func() {})
			if calls > 1 {
				tick.Repeat(time.Microsecond)
			}
			for _, c := range all {
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			for end := time.Now().Add(20 * time.Second); got < conns; {
				had := got
				turn()
				if got-had > calls {
					t.Fatalf("%d results in a turn of %d calls", got-had, calls)
				}
				if time.Now().After(end) {
					t.Fatalf("%d of %d results", got, conns)
				}
			}
			flood = false
			tick.Stop()
			for _, c := range all {
				_ = c.Close()
			}
			if err := ln.Close(); err != nil {
				t.Fatal(err)
			}
			turns(t, l, "the ends", func() bool { return l.Connections() == 0 })
		}

		// Close in the middle of a turn drops and counts what is left, and nothing runs.
		limit(weir.TurnLimit{Calls: 1})
		ran = 0
		for range 5 {
			l.Soon(func() { ran++ })
		}
		turn()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if ran != 1 {
			t.Errorf("%d callbacks ran, want 1", ran)
		}
	})
}

// TestTurnLimitDropped: callbacks that a limited turn left are reported when the loop is
// closed (behaviour 16).
func TestTurnLimitDropped(t *testing.T) {
	var dropped *weir.DroppedError
	l := newLoop(t, weir.WithErrorHandler(func(err error) { errors.As(err, &dropped) }))
	if err := l.SetTurnLimit(weir.TurnLimit{Calls: 2}); err != nil {
		t.Fatal(err)
	}
	for range 7 {
		l.Soon(func() {})
	}
	if err := l.Turn(0); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if dropped == nil || dropped.Callbacks != 5 {
		t.Errorf("reported %+v, want 5 callbacks", dropped)
	}
}
