package contract

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// shoppers are clients of a simulated host: each sends something, leaves a while
// after the echo, and counts.
type shoppers struct {
	l           *weir.Loop
	stay        time.Duration
	served, cut int
	last        error
}

func (v *shoppers) come(addr string) { v.l.Connect("tcp", addr, &shopper{v: v}) }

type shopper struct {
	v    *shoppers
	t    weir.Transport
	done bool
}

func (c *shopper) ConnectionMade(t weir.Transport) {
	c.t = t
	_, _ = t.Write([]byte("x")) // the loss says why
}

func (c *shopper) DataReceived(p []byte) (int, error) {
	c.done = true
	c.v.l.After(c.v.stay, func() { _ = c.t.Close() })
	return len(p), nil
}

func (c *shopper) ConnectionLost(err error) {
	if c.done {
		c.v.served++
		return
	}
	c.v.cut++
	c.v.last = err
}

func (c *shopper) ConnectFailed(err *weir.ConnectError) {
	c.v.cut++
	c.v.last = err
}

func echo(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }

// allServed has n shoppers come to the host named middle, all of which are to be served.
func allServed(t *testing.T, s *weirtest.Sim, from *weirtest.SimHost, n int) {
	t.Helper()
	v := &shoppers{l: from.Loop(), stay: time.Second}
	for range n {
		v.come("middle:7000")
	}
	if err := s.Run(func() bool { return v.served+v.cut == n }); err != nil {
		t.Fatal(err)
	}
	if v.cut > 0 {
		t.Errorf("%d were cut: %v", v.cut, v.last)
	}
}

// waits counts the failures of a simulation that report waiting connections, and
// those that report refused ones.
func waits(t *testing.T, failures []error) (waiting, refused int) {
	t.Helper()
	for _, err := range failures {
		var a *weir.AdmissionError
		switch {
		case !errors.As(err, &a):
			t.Errorf("reported: %v", err)
		case a.Waits:
			waiting += a.Count
		default:
			refused += a.Count
		}
	}
	return waiting, refused
}

// TestWaitForPlace: clients without a place wait in the system's queue until
// another leaves; each is served, and none is reset (C8).
func TestWaitForPlace(t *testing.T) {
	for _, c := range []layer.LimitConfig{
		{Total: 20, Wait: time.Minute},
		{Total: 20, Share: 15, Wait: time.Minute, Patience: 2 * time.Second},
	} {
		t.Run(fmt.Sprintf("share %d", c.Share), func(t *testing.T) {
			s := weirtest.NewSim(t, 1)
			server, client := s.Host("server"), s.Host("client")
			limit := layer.NewLimiter(c)
			ln, err := server.Loop().Listen("tcp", ":7000", echo, weir.WithAdmission(limit))
			if err != nil {
				t.Fatal(err)
			}
			most, handles := 0, 0
			s.OnStep(func() {
				most = max(most, ln.Conns())
				handles = max(handles, server.Handles())
			})
			v := &shoppers{l: client.Loop(), stay: time.Second}
			for range 300 {
				v.come("server:7000")
			}
			if err := s.Run(func() bool { return v.served+v.cut == 300 }); err != nil {
				t.Fatal(err)
			}
			if v.cut > 0 {
				t.Errorf("%d were cut: %v", v.cut, v.last)
			}
			if most > 20 || handles > 40 {
				t.Errorf("%d connections of 20, %d handles", most, handles)
			}
			// 16 rounds of one second: a place is taken as soon as it is free.
			if s.Now() < 14*time.Second || s.Now() > 20*time.Second {
				t.Errorf("it took %v", s.Now())
			}
			waiting, refused := waits(t, s.Failures)
			if waiting == 0 || refused > 0 {
				t.Errorf("%d reported as waiting, %d as refused", waiting, refused)
			}
			if err := s.Run(func() bool { return limit.Count() == 0 }); err != nil {
				t.Fatal(err)
			}
			_ = ln.Close()
		})
	}
}

// TestPatience: an address that keeps every place it may have holds up the others for as
// long as one connection waits, but not again soon: any more of its connections are
// refused at once (S3).
func TestPatience(t *testing.T) {
	const patience = 2 * time.Second
	s := weirtest.NewSim(t, 1)
	server, greedy, other := s.Host("server"), s.Host("greedy"), s.Host("other")
	limit := layer.NewLimiter(layer.LimitConfig{Total: 20, Share: 15, Wait: time.Minute, Patience: patience})
	ln, err := server.Loop().Listen("tcp", ":7000", echo, weir.WithAdmission(limit))
	if err != nil {
		t.Fatal(err)
	}
	bad := &shoppers{l: greedy.Loop(), stay: time.Hour}
	for range 300 {
		bad.come("server:7000")
	}
	if err := s.RunFor(patience / 2); err != nil {
		t.Fatal(err)
	}
	if bad.cut > 0 || limit.Room() == 0 {
		t.Fatalf("%d cut, room for %d", bad.cut, limit.Room())
	}
	good := &shoppers{l: other.Loop()}
	good.come("server:7000")
	s.Until("the other one", func() bool { return good.served+good.cut == 1 })
	if good.cut > 0 || s.Now() > patience*3/2 {
		t.Errorf("the other one: %v after %v", good.last, s.Now())
	}
	s.Until("its place again", func() bool { return limit.Count() == 19 }) // or the next would wait for that
	for range 50 {                                                         // those that come after that wait do not wait
		bad.come("server:7000")
	}
	began := s.Now()
	s.Until("their end", func() bool { return bad.cut == 350-19 })
	good.come("server:7000")
	s.Until("the other one again", func() bool { return good.served+good.cut == 2 })
	if good.cut > 0 || s.Now()-began > patience/4 {
		t.Errorf("the other one again: %v after %v", good.last, s.Now()-began)
	}
	if err := s.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	if limit.Count() != 19 || bad.cut != 350-19 {
		t.Errorf("%d connections, %d cut", limit.Count(), bad.cut)
	}
	_ = ln.Close()
}

// TestPatienceTotal: if all places stay taken, the first of those that wait is
// refused in the end, so that a relay that waits for itself ends.
func TestPatienceTotal(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	server, client := s.Host("server"), s.Host("client")
	limit := layer.NewLimiter(layer.LimitConfig{Total: 2, Wait: 30 * time.Second})
	ln, err := server.Loop().Listen("tcp", ":7000", echo, weir.WithAdmission(limit))
	if err != nil {
		t.Fatal(err)
	}
	v := &shoppers{l: client.Loop(), stay: 80 * time.Second}
	for range 6 {
		v.come("server:7000")
	}
	if err := s.RunFor(29 * time.Second); err != nil {
		t.Fatal(err)
	}
	if v.cut != 0 {
		t.Errorf("%d cut too early", v.cut)
	}
	if err := s.RunFor(2 * time.Second); err != nil {
		t.Fatal(err)
	}
	if v.cut != 1 {
		t.Errorf("%d cut, want one", v.cut)
	}
	if err := s.RunFor(time.Minute); err != nil {
		t.Fatal(err)
	}
	if v.served != 2 || v.cut != 2 || limit.Count() != 2 {
		t.Errorf("%d served, %d cut, %d there; want two each", v.served, v.cut, limit.Count())
	}
	_ = ln.Close()
}

// TestWaitReal is TestWaitForPlace with the system's queue, on every backend:
// waiting connections are served in the order in which they came, a waiting
// connection ends with the listener, and Shutdown serves all that had come before.
func TestWaitReal(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		limit := layer.NewLimiter(layer.LimitConfig{Total: 2, Wait: time.Hour})
		var ts []weir.Transport
		listen := func() *weir.Listener {
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
				ts = append(ts, t)
				return &lastWords{lost: func(error) {}}
			}, weir.WithAdmission(limit))
			if err != nil {
				t.Fatal(err)
			}
			return ln
		}
		ln := listen()
		all := dial(t, ln.Addr(), 6)
		for i, c := range all {
			turns(t, l, "one more", func() bool { return len(ts) >= min(i+2, 6) })
			if len(ts) != min(i+2, 6) {
				t.Fatalf("%d were made when %d had left", len(ts), i)
			}
			if got, want := ts[i].RemoteAddr().String(), c.LocalAddr().String(); got != want {
				t.Fatalf("the %d. is %s, want %s", i+1, got, want)
			}
			ts[i].Abort()
		}
		turns(t, l, "all to leave", func() bool { return limit.Count() == 0 })

		ts = nil
		all = dial(t, ln.Addr(), 5)
		turns(t, l, "two", func() bool { return len(ts) == 2 })
		ended := false
		ln.Shutdown(time.Hour, func(err error) {
			ended = true
			if err != nil {
				t.Error(err)
			}
		})
		for i := range 5 {
			turns(t, l, "one more", func() bool { return len(ts) > i })
			ts[i].Abort()
		}
		turns(t, l, "the end", func() bool { return ended })
		_ = all

		ts = nil
		ln = listen()
		all = dial(t, ln.Addr(), 3)
		turns(t, l, "two", func() bool { return len(ts) == 2 && ln.Conns() == 2 })
		_ = ln.Close()
		if err := all[2].SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := all[2].Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.EAGAIN) {
			t.Errorf("one that waited when the listener was closed: %v", err)
		}
		if limit.Count() != 2 {
			t.Errorf("%d are counted", limit.Count())
		}
	})
}

// relayTo relays connections to addr, each on its own loop.
func relayTo(addr string, opts ...weir.ConnectOption) weir.Factory {
	return func(t weir.Transport) weir.Protocol {
		var up *weir.Connector
		r := relay.New(relay.Config{Abandon: func(relay.Side) { up.Stop() }})
		up = t.Loop().Connect("tcp", addr, r.Protocol(relay.B), opts...)
		return r.Protocol(relay.A)
	}
}

// forward relays connections to a port of h to addr.
func forward(t *testing.T, l *weir.Loop, netw, at, addr string, opts ...weir.ConnectOption) *weir.Listener {
	t.Helper()
	ln, err := l.Listen(netw, at, relayTo(addr, opts...))
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// TestDescriptorsRunOut: a relay without an Admission whose process has no descriptor
// left stops accepting, and accepted connections wait for one: all are served, none
// is reset, on several loops too: one does not accept while a connect on another waits. Without WithDescriptorWait such a connect fails at once, and with it
// after that time (C8).
func TestDescriptorsRunOut(t *testing.T) {
	t.Run("all are served", func(t *testing.T) {
		s := weirtest.NewSim(t, 1)
		server, middle, client := s.Host("server"), s.Host("middle"), s.Host("client")
		target, err := server.Loop().Listen("tcp", ":7000", echo)
		if err != nil {
			t.Fatal(err)
		}
		middle.SetHandles(41)
		ln := forward(t, middle.Loop(), "tcp", ":7000", "server:7000", weir.WithDescriptorWait(10*time.Second))
		allServed(t, s, client, 200)
		_, _ = target.Close(), ln.Close()
		if err := s.RunFor(time.Second); err != nil { // the shortage's own timer
			t.Fatal(err)
		}
	})
	t.Run("all are served by three loops", func(t *testing.T) {
		s := weirtest.NewSim(t, 1)
		server, middle, client := s.Host("server"), s.Host("middle"), s.Host("client")
		target, err := server.Loop().Listen("tcp", ":7000", echo)
		if err != nil {
			t.Fatal(err)
		}
		middle.SetHandles(41)
		g, err := weir.GroupOf(middle.Loop(), middle.NewLoop(), middle.NewLoop())
		if err != nil {
			t.Fatal(err)
		}
		ln, err := g.Listen("tcp", ":7000", relayTo("server:7000", weir.WithDescriptorWait(5*time.Second)))
		if err != nil {
			t.Fatal(err)
		}
		allServed(t, s, client, 400)
		_, _ = target.Close(), ln.Close()
		if err := s.RunFor(time.Second); err != nil { // the shortage's own timer
			t.Fatal(err)
		}
	})
	for _, wait := range []time.Duration{0, 10 * time.Second} {
		t.Run(fmt.Sprint("fails after ", wait), func(t *testing.T) {
			s := weirtest.NewSim(t, 1)
			client := s.Host("client")
			client.SetHandles(1)
			if _, err := client.Loop().Listen("tcp", ":7000", echo); err != nil { // it takes the last one
				t.Fatal(err)
			}
			v := &shoppers{l: client.Loop()}
			client.Loop().Connect("tcp", netip.AddrPortFrom(client.Addrs()[0], 7000).String(), &shopper{v: v}, weir.WithDescriptorWait(wait))
			s.Until("the failure", func() bool { return v.cut == 1 })
			var failed *weir.ConnectError
			if !errors.As(v.last, &failed) || failed.Stage != weir.StageConnect || !errors.Is(v.last, syscall.EMFILE) {
				t.Errorf("it failed with %v", v.last)
			}
			if late := s.Now() - wait; late < 0 || late > 200*time.Millisecond {
				t.Errorf("it failed after %v", s.Now())
			}
			if err := s.RunFor(time.Second); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("Stop while it waits", func(t *testing.T) {
		s := weirtest.NewSim(t, 1)
		client := s.Host("client")
		client.SetHandles(1)
		ln, err := client.Loop().Listen("tcp", ":7000", echo)
		if err != nil {
			t.Fatal(err)
		}
		v := &shoppers{l: client.Loop()}
		c := client.Loop().Connect("tcp", "client:7000", &shopper{v: v}, weir.WithDescriptorWait(time.Hour))
		if err := s.RunFor(time.Second); err != nil {
			t.Fatal(err)
		}
		if v.cut != 0 || !c.Stop() {
			t.Errorf("it is over: %v", v.last)
		}
		s.Until("the failure", func() bool { return v.cut == 1 })
		if !errors.Is(v.last, weir.ErrStopped) {
			t.Errorf("it failed with %v", v.last)
		}
		client.SetHandles(10) // the listener accepts again
		v.come("client:7000")
		s.Until("one that is served", func() bool { return v.served == 1 })
		_ = ln.Close()
	})
}

// TestShortageEnds: a listener that had no descriptor for a connection accepts it
// as soon as the loop closes something, and not only when it looks again.
func TestShortageEnds(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	server, client := s.Host("server"), s.Host("client")
	server.SetHandles(2)
	var first weir.Transport
	made := 0
	ln, err := server.Loop().Listen("tcp", ":7000", func(t weir.Transport) weir.Protocol {
		if made++; made == 1 {
			first = t
		}
		return echo(t)
	})
	if err != nil {
		t.Fatal(err)
	}
	v := &shoppers{l: client.Loop(), stay: time.Hour}
	v.come("server:7000")
	v.come("server:7000")
	s.Until("the first", func() bool { return made == 1 })
	s.Until("a shortage", func() bool { return len(s.Failures) > 0 })
	s.Until("some time", func() bool { return s.Now() > 1030*time.Millisecond })
	server.Loop().Soon(first.Abort)
	at := s.Now()
	s.Until("the second", func() bool { return made == 2 })
	if took := s.Now() - at; took > 10*time.Millisecond {
		t.Errorf("the second came after %v", took)
	}
	_ = ln.Close()
}

// TestShutdownBroken: a listener whose accept fails for good ends as well, whether it is shut
// down at the first failure or long after (R70).
func TestShutdownBroken(t *testing.T) {
	for _, after := range []time.Duration{0, time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			s := weirtest.NewSim(t, 1)
			server, client := s.Host("server"), s.Host("client")
			ln, err := server.Loop().Listen("tcp", ":7000", echo)
			if err != nil {
				t.Fatal(err)
			}
			calls := s.Calls(weirtest.AcceptCall)
			server.Fail(weirtest.AcceptCall, 1, syscall.EINVAL)
			s.OnStep(func() {
				if now := s.Calls(weirtest.AcceptCall); now != calls {
					calls = now
					server.Fail(weirtest.AcceptCall, 1, syscall.EINVAL)
				}
			})
			v := &shoppers{l: client.Loop(), stay: time.Second}
			v.come("server:7000")
			s.Until("a failure", func() bool { return len(s.Failures) > 0 })
			if err := s.RunFor(after); err != nil {
				t.Fatal(err)
			}
			began, ended := s.Now(), false
			ln.Shutdown(time.Hour, func(err error) {
				if ended = true; err != nil {
					t.Error(err)
				}
			})
			s.Until("the end", func() bool { return ended })
			if took := s.Now() - began; took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestShutdownShortage: a listener that is shut down is not taken for one whose queue is
// empty if what held accepting back has ended in the same turn: a shortage of descriptors,
// or of memory (R70, C8).
func TestShutdownShortage(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENOMEM} {
		t.Run(errno.Error(), func(t *testing.T) {
			s := weirtest.NewSim(t, 1)
			server, client := s.Host("server"), s.Host("client")
			ln, err := server.Loop().Listen("tcp", ":7000", echo)
			if err != nil {
				t.Fatal(err)
			}
			server.Fail(weirtest.AcceptCall, 1, errno)
			const all = 4
			v := &shoppers{l: client.Loop(), stay: time.Second}
			for range all {
				v.come("server:7000")
			}
			s.Until("a shortage", func() bool { return len(s.Failures) > 0 })
			ended := false
			// It looks at the queue when the shortage is over, and right after that.
			ln.Shutdown(patience, func(err error) {
				if ended = true; err != nil {
					t.Error(err)
				}
			})
			s.Until("the end", func() bool { return ended && v.served+v.cut == all })
			if v.cut > 0 {
				t.Errorf("%d of %d were cut: %v", v.cut, all, v.last)
			}
		})
	}
}
