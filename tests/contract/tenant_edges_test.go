package contract

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

// owing makes a tenant that has had much more than its share: as long as busy is open, its
// next turn is far away.
func owing(t *testing.T, l *weir.Loop) (tn, busy *weir.Tenant) {
	t.Helper()
	tn, busy = share(t, l.NewTenant("owing"), 1), share(t, l.NewTenant("busy"), 100)
	flood(busy, 10, func() {})
	ran := false
	tn.Soon(func() {
		spin(5 * time.Millisecond)
		ran = true
	})
	turns(t, l, "the callback", func() bool { return ran })
	return tn, busy
}

// TestTenantQueue: the queue of a tenant that always has something left takes no more
// memory with each callback (G3).
func TestTenantQueue(t *testing.T) {
	l := newLoop(t)
	defer l.Close()
	tn := share(t, l.NewTenant("one"), 1)
	defer tn.Close(nil)
	p := flood(tn, 1000, func() {})
	memory := func(n int) uint64 {
		turns(t, l, "callbacks", func() bool { return p.ran >= n })
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := memory(20_000)
	if after := memory(300_000); after > before+1<<20 {
		t.Errorf("%d bytes more after 280,000 callbacks", after-before)
	}
}

// TestTenantEndsParked: a tenant is closed by a result that cannot wait for its turn. What
// counts is then right: callbacks of others go on, and those that the tenant has left do
// not run (G1, G6).
func TestTenantEndsParked(t *testing.T) {
	for _, queued := range []int{0, 3} {
		t.Run(fmt.Sprint(queued), func(t *testing.T) {
			onRealLoops(t, func(t *testing.T, l *weir.Loop) {
				tn, busy := owing(t, l)
				ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
					return &closer{tn: tn}
				}, weir.WithTenant(tn))
				if err != nil {
					t.Fatal(err)
				}
				for range queued {
					tn.Soon(func() { t.Error("a callback of a closed tenant ran") })
				}
				if err := l.Turn(0); err != nil {
					t.Fatal(err)
				}
				for _, c := range dial(t, ln.Addr(), 8) {
					defer c.Close()
				}
				turns(t, l, "the end", func() bool { return tn.Closed() != nil })
				busy.Close(nil)
				third := share(t, l.NewTenant("third"), 1)
				defer third.Close(nil)
				ran := 0
				for range 3 {
					third.Soon(func() { ran++ })
				}
				turns(t, l, "another's callbacks", func() bool { return ran == 3 })
				for n := 0; ; n++ {
					if _, ok := l.Next(); !ok {
						break
					}
					if n == 10 {
						t.Fatal("there is always something left to do")
					}
					if err := l.Turn(0); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// closer closes its tenant when it is connected.
type closer struct {
	weir.NopProtocol
	tn *weir.Tenant
}

func (p *closer) ConnectionMade(weir.Transport) { p.tn.Close(nil) }

// TestTenantOverInside: a tenant that is made inside one over its budget is held back like
// that one, also when it is over for the second time (R80).
func TestTenantOverInside(t *testing.T) {
	sim := weirtest.NewSim(t, 1)
	l := sim.Host("one").Loop()
	outer := l.NewTenant("outer")
	if err := outer.SetLimits(weir.TenantLimits{Buffered: 1000}); err != nil {
		t.Fatal(err)
	}
	port := uint16(0)
	open := func(tn *weir.Tenant, use func([]byte) int) (p, peer *talker) {
		t.Helper()
		port++
		p, peer = &talker{use: use}, &talker{}
		if _, err := l.Listen("tcp", fmt.Sprint(":", port), func(weir.Transport) weir.Protocol { return p }, weir.WithTenant(tn)); err != nil {
			t.Fatal(err)
		}
		l.Connect("tcp", sim.Host("one").Addr(port), peer)
		sim.Until("the connection", func() bool { return p.t != nil && peer.t != nil })
		return p, peer
	}
	none := func([]byte) int { return 0 }
	over := func() (hog *talker) {
		t.Helper()
		hog, peer := open(outer, none)
		_, _ = peer.t.Write(make([]byte, 2000))
		sim.Until("too many bytes", func() bool { return outer.Stats().Buffered > 1000 })
		return hog
	}
	hog := over()
	inner := outer.NewTenant("inner")
	hog.t.Abort()
	sim.Until("room", func() bool { return outer.Stats().Buffered == 0 })
	p, peer := open(inner, nil)
	hog = over()
	_, _ = peer.t.Write(make([]byte, 10))
	if err := sim.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	if p.got > 0 {
		t.Errorf("%d bytes were read while the outer tenant was over its budget", p.got)
	}
	hog.t.Abort()
	sim.Until("the bytes", func() bool { return p.got == 10 })
	outer.Close(nil)
	if err := sim.Run(nil); err != nil {
		t.Error(err)
	}
}

// TestTurnLimitShares: with shares too, a limited turn makes some callbacks, no more than
// its limit allows, and in the same order as turns without one (R18, R69).
func TestTurnLimitShares(t *testing.T) {
	var orders [2][]int
	for k, m := range [...]weir.TurnLimit{{}, {Calls: 3}} {
		sim := weirtest.NewSim(t, 1)
		l := sim.Host("one").Loop()
		if err := l.SetTurnLimit(m); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			tn := share(t, l.NewTenant("t"), 3-i)
			for j := range 50 {
				tn.Soon(func() { orders[k] = append(orders[k], 100*i+j) })
			}
		}
		sim.Until("all callbacks", func() bool { return len(orders[k]) == 150 })
	}
	if !slices.Equal(orders[0], orders[1]) {
		t.Errorf("the order with a limit is %v, without one %v", orders[1], orders[0])
	}
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		const calls, conns = 3, 20
		tn := share(t, l.NewTenant("one"), 1)
		defer tn.Close(nil)
		got, open := 0, 0
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			open++
			return weir.DataFunc(func(p []byte) (int, error) { got++; return len(p), nil })
		}, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		all := dial(t, ln.Addr(), conns)
		turns(t, l, "connections", func() bool { return open == conns })
		if err := l.SetTurnLimit(weir.TurnLimit{Calls: calls}); err != nil {
			t.Fatal(err)
		}
		ran := 0
		for range 50 {
			tn.Soon(func() { ran++ })
		}
		for ran < 50 {
			had := ran
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			if n := ran - had; n == 0 || n > calls {
				t.Fatalf("%d callbacks in a turn of %d", n, calls)
			}
		}
		p := flood(tn, 20, func() {})
		for _, c := range all {
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		for end := time.Now().Add(patience); got < conns; {
			had := got + p.ran
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			if n := got + p.ran - had; n > calls {
				t.Fatalf("%d callbacks in a turn of %d", n, calls)
			}
			if time.Now().After(end) {
				t.Fatalf("%d of %d results", got, conns)
			}
		}
	})
}

// TestShareClosing: Close hands over what was read and waited for its tenant's turn, and
// reads on (G2).
func TestShareClosing(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		tn, _ := owing(t, l)
		p := &talker{}
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return p }, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, ln.Addr(), 1)[0]
		defer c.Close()
		turns(t, l, "the connection", func() bool { return p.t != nil })
		tn.Soon(func() { spin(5 * time.Millisecond) }) // it may have been its turn
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		for range 10 { // it is read, and as a rule parked
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if n := tn.Stats().BytesIn; n != 1 {
			t.Fatalf("%d bytes were read", n)
		}
		var dropped *weir.DroppedError
		if err := l.Close(); err != nil && !errors.As(err, &dropped) {
			t.Error(err)
		}
		if p.got != 1 || !p.lost {
			t.Errorf("got %d bytes, lost %v", p.got, p.lost)
		}
	})
}

// TestTenantAdoptInside: between tenants inside another, a connection moves although that
// one has no room: it has it already. A limit that it would newly count for holds (R80).
func TestTenantAdoptInside(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		outer := l.NewTenant("outer")
		defer outer.Close(nil)
		door, shop := outer.NewTenant("door"), outer.NewTenant("shop")
		if err := outer.SetLimits(weir.TenantLimits{Connections: 1}); err != nil {
			t.Fatal(err)
		}
		p := &talker{}
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return p }, weir.WithTenant(door))
		if err != nil {
			t.Fatal(err)
		}
		defer dial(t, ln.Addr(), 1)[0].Close()
		turns(t, l, "the connection", func() bool { return p.t != nil })
		for _, tn := range []*weir.Tenant{shop, outer, door} {
			if err := tn.Adopt(p.t); err != nil || weir.TenantOf(p.t) != tn {
				t.Errorf("to %s: %v", tn.Name(), err)
			}
		}
		other := l.NewTenant("other")
		defer other.Close(nil)
		full := other.NewTenant("full")
		if err := other.SetLimits(weir.TenantLimits{Connections: 1}); err != nil {
			t.Fatal(err)
		}
		q := &talker{}
		if ln, err = l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return q }, weir.WithTenant(other)); err != nil {
			t.Fatal(err)
		}
		defer dial(t, ln.Addr(), 1)[0].Close()
		turns(t, l, "the other", func() bool { return q.t != nil })
		var budget *weir.BudgetError
		if err := full.Adopt(p.t); !errors.As(err, &budget) || budget.Tenant != "other" || weir.TenantOf(p.t) != door {
			t.Errorf("to a tenant that is full: %v", err)
		}
		if n, m := outer.Stats().Connections, other.Stats().Connections; n != 1 || m != 1 {
			t.Errorf("%d and %d connections", n, m)
		}
	})
}

// TestTenantAdoptRest: a layer that still has something to offer is adopted after the
// connection below it has ended, which then counts nowhere (G6).
func TestTenantAdoptRest(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		tn := l.NewTenant("one")
		defer tn.Close(nil)
		up := &talker{}
		up.use = func([]byte) int { up.t.PauseReading(); return 0 }
		ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(func(weir.Transport) weir.Protocol { return up }, newAhead))
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, ln.Addr(), 1)[0]
		if _, err := c.Write([]byte("rest")); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the bytes", func() bool { return up.t != nil && up.t.Buffered() == 0 && l.Connections() == 1 })
		for range 5 {
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
		turns(t, l, "the end below", func() bool { return l.Connections() == 0 })
		if err := tn.Adopt(up.t); err != nil {
			t.Fatal(err)
		}
		if n := tn.Stats().Connections; n != 0 {
			t.Errorf("%d connections are counted", n)
		}
		up.use = nil
		up.t.ResumeReading()
		turns(t, l, "the end", func() bool { return up.lost })
		if s := tn.Stats(); up.got != 4 || s.Connections != 0 || s.Buffered != 0 {
			t.Errorf("got %d bytes: %+v", up.got, s)
		}
	})
}

// ahead is a layer that reads on while it is paused, and so finds the end below early.
type ahead struct{ layer.Base }

func newAhead(a layer.Above) layer.Above {
	return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
		e := &ahead{}
		return e.Init(e, "ahead", a)
	}}
}

func (*ahead) PauseReading()  {}
func (*ahead) ResumeReading() {}

// TestTenantLastData: a connection of a tenant gets no data after the functions of OnClose,
// though it was read in the same turn (R70).
func TestTenantLastData(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		tn := share(t, l.NewTenant("one"), 1)
		var closed bool
		open, lost := 0, 0
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			open++
			return &endNoted{lost: &lost, data: func() {
				if closed {
					t.Error("data after the end of the tenant")
				}
			}}
		}, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		ends, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			open++
			return weir.DataFunc(func(p []byte) (int, error) { tn.Close(nil); return len(p), nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		const conns = 4
		all := append(dial(t, ln.Addr(), conns), dial(t, ends.Addr(), 1)...)
		turns(t, l, "the connections", func() bool { return open == conns+1 })
		tn.OnClose(func(error) { closed = true })
		for _, c := range all {
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		turns(t, l, "the losses", func() bool { return lost == conns })
	})
}

type endNoted struct {
	weir.NopProtocol
	lost *int
	data func()
}

func (p *endNoted) DataReceived(b []byte) (int, error) { p.data(); return len(b), nil }
func (p *endNoted) ConnectionLost(error)               { *p.lost++ }

// TestTurnLimitHost: what a host does between two turns is looked after first, wherever a
// limit has stopped the turn before (R18, R70).
func TestTurnLimitHost(t *testing.T) {
	for _, left := range []int{0, 2} { // callbacks of the turn that it stops before
		onRealLoops(t, func(t *testing.T, l *weir.Loop) {
			if err := l.SetTurnLimit(weir.TurnLimit{Calls: 1}); err != nil {
				t.Fatal(err)
			}
			tn := l.NewTenant("one")
			closed := false
			tn.OnClose(func(error) { closed = true })
			ran := 0
			for range 1 + left {
				l.Soon(func() {
					if ran++; ran > 1 && !closed {
						t.Error("a callback came before the end of the tenant")
					}
				})
			}
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			if ran != 1 {
				t.Fatalf("%d callbacks ran", ran)
			}
			tn.Close(nil)
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			if !closed {
				t.Error("the tenant has not ended after a turn")
			}
		})
	}
}

// TestShareShutdown: a listener that waits for its tenant's turn is not taken for one whose
// queue is empty (R70, G1).
func TestShareShutdown(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		tn, busy := owing(t, l)
		defer tn.Close(nil)
		made := 0
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			made++
			return weir.NopProtocol{}
		}, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		first := dial(t, ln.Addr(), 1)[0]
		turns(t, l, "the first", func() bool { return made == 1 })
		for range 3 { // what was canceled ends
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		const more = 5
		all := append(dial(t, ln.Addr(), more), first)
		done := false
		ln.Shutdown(patience, func(err error) {
			if done = true; err != nil {
				t.Error(err)
			}
		})
		for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		busy.Close(nil)
		turns(t, l, "the others", func() bool { return made == 1+more })
		for _, c := range all {
			_ = c.Close()
		}
		turns(t, l, "the end", func() bool { return done })
	})
}

// TestTenantGoexit: a callback of the end of a tenant that ends the loop's goroutine keeps
// nothing else from ending, and nothing is told twice (behaviour 7).
func TestTenantGoexit(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		one, two := share(t, l.NewTenant("one"), 1), share(t, l.NewTenant("two"), 1)
		told := [4]int{}
		one.OnClose(func(error) {
			told[0]++
			runtime.Goexit()
		})
		one.OnClose(func(error) { told[1]++ })
		two.OnClose(func(error) { told[2]++ })
		made := 0
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			made++
			return &endNoted{lost: &told[3]}
		}, weir.WithTenant(one))
		if err != nil {
			t.Fatal(err)
		}
		defer dial(t, ln.Addr(), 1)[0].Close()
		turns(t, l, "the connection", func() bool { return made == 1 })
		l.Soon(func() {
			one.Close(nil)
			two.Close(nil)
		})
		for told[0] == 0 {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				_ = l.Turn(time.Millisecond) // it does not return
			}()
			<-done
		}
		turns(t, l, "the rest", func() bool { return one.Stats().Connections == 0 && told[2] > 0 })
		if told != [4]int{1, 1, 1, 1} {
			t.Errorf("told %v times", told)
		}
		third, ran := share(t, l.NewTenant("third"), 1), 0
		defer third.Close(nil)
		third.Soon(func() { ran++ })
		turns(t, l, "another's callback", func() bool { return ran == 1 })
	})
}

// TestTenantUnsent: datagrams that could not be sent do not count as sent (R80).
func TestTenantUnsent(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no unixgram sockets")
	}
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		tn := l.NewTenant("one")
		defer tn.Close(nil)
		dir, err := os.MkdirTemp("", rand.Text()[:4]) // a short path
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		f := &failing{}
		e, err := l.ListenPacket("unixgram", filepath.Join(dir, "a"), f, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the endpoint", func() bool { return f.made })
		failed := 0
		for range 3 {
			if err := e.SendTo([]byte("lost"), weir.PacketAddr{Path: filepath.Join(dir, "none")}); err != nil {
				failed++
			}
		}
		turns(t, l, "the failures", func() bool { return failed+f.failed == 3 })
		if n := tn.Stats().BytesOut; n != 0 {
			t.Errorf("%d bytes count as sent", n)
		}
	})
}

type failing struct {
	made   bool
	failed int
}

func (p *failing) EndpointMade(*weir.PacketEndpoint)      { p.made = true }
func (p *failing) PacketReceived([]byte, weir.PacketAddr) {}
func (p *failing) EndpointLost(error)                     {}
func (p *failing) PacketFailed(error, weir.PacketAddr)    { p.failed++ }
