package contract

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/weirtest"
)

var _ future.Loop[*weir.Call, *weir.Timer] = (*weir.Tenant)(nil)

var errBankrupt = errors.New("bankrupt")

// tenantConn counts how it is told of its connection, and of nothing afterwards.
type tenantConn struct {
	t      *testing.T
	tr     weir.Transport
	turn   *int // the turn in progress
	made   int
	lost   int
	failed int
	reason error
	lostIn int // that turn
}

func (p *tenantConn) ConnectionMade(tr weir.Transport) { p.tr, p.made = tr, p.made+1 }
func (p *tenantConn) DataReceived(b []byte) (int, error) {
	if p.lost > 0 {
		p.t.Error("data after the end")
	}
	return len(b), nil
}

func (p *tenantConn) ConnectionLost(err error) {
	p.lost++
	p.reason, p.lostIn = err, *p.turn
}

func (p *tenantConn) ConnectFailed(err *weir.ConnectError) {
	p.failed++
	p.reason, p.lostIn = err, *p.turn
}

// How many turns after Close the kernel may hold something of a tenant: see
// docs/limits.md. On io_uring it ends at least so many canceled reads in each.
const (
	tenantTurnsMost     = 4
	tenantCanceledLeast = 128
)

// TestTenantClose: closing a tenant tells every loss once, in that turn and with the
// reason, and nothing of it is left a few turns later (R70, G1, G6).
func TestTenantClose(t *testing.T) {
	conns := 1000
	if race.Enabled || testing.Short() {
		conns = 100
	}
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		turn := 0
		step := func(wait time.Duration) {
			t.Helper()
			turn++
			if err := l.Turn(wait); err != nil {
				t.Fatal(err)
			}
		}
		until := func(what string, cond func() bool) {
			t.Helper()
			for deadline := time.Now().Add(patience); !cond(); {
				if step(10 * time.Millisecond); time.Now().After(deadline) {
					t.Fatal("waited in vain for ", what)
				}
			}
		}
		before := weirtest.TakeSnapshot()
		tn := l.NewTenant("shop")
		kids := make([]*weir.Tenant, 10)
		for i := range kids {
			kids[i] = tn.NewTenant("kid")
		}
		var all []*tenantConn
		conn := func() *tenantConn {
			p := &tenantConn{t: t, turn: &turn}
			all = append(all, p)
			return p
		}
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return conn() }, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		other := &tenantConn{t: t, turn: &turn}
		stays, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return other })
		if err != nil {
			t.Fatal(err)
		}
		l.Connect("tcp", stays.Addr().String(), conn(), weir.WithTenant(kids[0]))
		for i := 1; i < conns/2; i++ {
			l.Connect("tcp", ln.Addr().String(), conn(), weir.WithTenant(kids[i%len(kids)]))
			if i%100 == 0 {
				until("some connections", func() bool { return l.Connections() >= 2*i })
			}
		}
		until("the connections", func() bool { return l.Connections() == 2*(conns/2) && other.made == 1 })
		if got := tn.Stats().Connections; got != conns-1 && got != conns/2*2-1 {
			t.Errorf("the tenant counts %d connections", got)
		}
		// More that belongs to it: none of it may be heard of again.
		for range 1000 {
			tn.After(time.Hour, func() { t.Error("a timer fired") })
		}
		told, ran := 0, false
		kids[1].OnClose(func(err error) {
			if told++; !errors.Is(err, errBankrupt) {
				t.Errorf("OnClose is told of %v", err)
			}
		})
		e := &tenantPackets{turn: &turn}
		if _, err := l.ListenPacket("udp", "127.0.0.1:0", e, weir.WithTenant(kids[2])); err != nil {
			t.Fatal(err)
		}
		name := &tenantConn{t: t, turn: &turn}
		// A resolver that never answers.
		l.Connect("tcp", "never.example:1", name, weir.WithTenant(tn), weir.WithConnectResolver(silentResolver{}))
		step(0)
		closedIn, nested := 0, 0
		l.Soon(func() {
			tn.Soon(func() { ran = true })
			tn.After(0, func() { ran = true })
			tn.Close(errBankrupt)
			tn.Close(errors.New("again"))
			closedIn = turn
			for _, p := range all {
				nested += p.lost
			}
			l.Soon(func() {
				if nested > 0 || told != 1 {
					t.Errorf("%d were told from inside Close, OnClose was called %d times", nested, told)
				}
			})
		})
		step(0)
		step(0)
		bad := 0
		for i, p := range all {
			if p.made != 1 || p.lost != 1 || p.lostIn != closedIn || !errors.Is(p.reason, errBankrupt) || !errors.Is(p.reason, weir.ErrTenantClosed) {
				if bad++; bad < 4 {
					t.Errorf("connection %d: made %d, lost %d in turn %d, closed in %d: %v", i, p.made, p.lost, p.lostIn, closedIn, p.reason)
				}
			}
		}
		if e.lost != 1 || e.lostIn != closedIn || !errors.Is(e.reason, errBankrupt) {
			t.Errorf("the endpoint: lost %d in turn %d: %v", e.lost, e.lostIn, e.reason)
		}
		if name.failed != 1 || name.lostIn != closedIn || !errors.Is(name.reason, errBankrupt) {
			t.Errorf("the connect: failed %d in turn %d: %v", name.failed, name.lostIn, name.reason)
		}
		if ran {
			t.Error("a callback ran after Close")
		}
		most := tenantTurnsMost
		if l.Backend().Name == "uring" {
			most += conns / tenantCanceledLeast
		}
		for turn < closedIn+most {
			step(time.Millisecond)
		}
		if n := l.Connections(); n != 1 && n != 0 {
			t.Errorf("%d connections are left after %d turns, want the other's one at most", n, most)
		}
		until("the other side's end", func() bool { return other.lost == 1 })
		for _, k := range append(kids, tn) {
			if s := k.Stats(); s.Connections != 0 || s.Buffered != 0 || !errors.Is(k.Closed(), errBankrupt) {
				t.Errorf("%s: %+v, closed %v", k.Name(), s, k.Closed())
			}
		}
		for what, err := range map[string]error{
			"Listen": func() error {
				_, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return conn() }, weir.WithTenant(kids[0]))
				return err
			}(),
			"Post":               func() error { _, err := tn.Post(func() {}); return err }(),
			"a tenant inside it": tn.NewTenant("late").Closed(),
		} {
			if !errors.Is(err, errBankrupt) || !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s of a closed tenant: %v", what, err)
			}
		}
		if err := stays.Close(); err != nil {
			t.Fatal(err)
		}
		step(0)
		if left := before.Leaks(patience); len(left) > 0 {
			t.Errorf("left over: %v (G6)", left)
		}
	})
}

type silentResolver struct{}

func (silentResolver) LookupNetIP(*weir.Loop, string, string, func([]netip.Addr, error)) func() {
	return func() {}
}

type tenantPackets struct {
	turn   *int
	lost   int
	lostIn int
	reason error
}

func (*tenantPackets) EndpointMade(*weir.PacketEndpoint)      {}
func (*tenantPackets) PacketReceived([]byte, weir.PacketAddr) {}
func (p *tenantPackets) EndpointLost(err error) {
	p.lost++
	p.reason, p.lostIn = err, *p.turn
}

// TestTenantTasks: tasks join by OnClose. They are canceled with the tenant, their clean-up
// runs in its turn, and the scheduler may be the tenant's own (R70, G7).
func TestTenantTasks(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		tn := l.NewTenant("one")
		s := future.On(tn)
		scope := task.New(s)
		tn.OnClose(func(err error) {
			scope.Cancel(err)
			if err := scope.Close(); err != nil {
				t.Error(err)
			}
		})
		const tasks = 100
		began, cleaned := 0, 0
		for range tasks {
			scope.Go("waits", func(tk *task.Task) error {
				began++
				err := tk.Sleep(time.Hour)
				if cause := tk.Scope().Cause(); !errors.Is(err, future.ErrCanceled) || !errors.Is(cause, errBankrupt) {
					t.Errorf("the wait returned %v, because of %v", err, cause)
				}
				cleaned++
				return err
			})
		}
		turns(t, l, "the tasks", func() bool { return began == tasks })
		l.Soon(func() {
			tn.Close(errBankrupt)
			if cleaned > 0 {
				t.Error("a task ran inside Close")
			}
			l.Soon(func() {
				if cleaned != tasks {
					t.Errorf("%d of %d tasks were cleaned up in the turn of Close", cleaned, tasks)
				}
			})
		})
		turns(t, l, "the end", func() bool { return cleaned == tasks })
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		if scope.Tasks() != 0 {
			t.Errorf("%d tasks are left", scope.Tasks())
		}
	})
}

// TestTenantOnClose: each function is called once, at the end of the tenant or of the loop;
// a removed one is not; one that panics keeps none from being called.
func TestTenantOnClose(t *testing.T) {
	l := newLoop(t, weir.WithErrorHandler(func(error) {}))
	one, two := l.NewTenant("one"), l.NewTenant("two").NewTenant("three")
	var told []error
	note := func(err error) { told = append(told, err) }
	one.OnClose(func(error) { panic("first") })
	one.OnClose(note)
	one.OnClose(func(error) { t.Error("removed, and called") })()
	two.OnClose(note)
	one.Close(errBankrupt)
	turns(t, l, "the end of one", func() bool { return len(told) > 0 })
	one.OnClose(note)
	turns(t, l, "a late function", func() bool { return len(told) > 1 })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if len(told) != 3 || !errors.Is(told[0], errBankrupt) || !errors.Is(told[1], errBankrupt) || !errors.Is(told[2], weir.ErrLoopClosed) {
		t.Errorf("told of %v", told)
	}
}

// TestTenantOpens: what WithTenant cannot be used for fails and says why.
func TestTenantOpens(t *testing.T) {
	l, other := newLoop(t), newLoop(t)
	defer l.Close()
	defer other.Close()
	g, err := weir.NewGroup(2)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	none := func(weir.Transport) weir.Protocol { return nil }
	foreign, grouped := weir.WithTenant(other.NewTenant("other")), weir.WithTenant(g.Loops()[0].NewTenant("first"))
	for what, open := range map[string]func() error{
		"Listen":       func() error { _, err := l.Listen("tcp", "127.0.0.1:0", none, foreign); return err },
		"Group.Listen": func() error { _, err := g.Listen("tcp", "127.0.0.1:0", none, grouped); return err },
		"ListenPacket": func() error { _, err := l.ListenPacket("udp", "127.0.0.1:0", &tenantPackets{}, foreign); return err },
		"Attach":       func() error { _, err := l.Attach(0, "input", none, foreign); return err },
		"Connect": func() (err error) {
			p := &tenantConn{t: t, turn: new(int)}
			l.Connect("tcp", "127.0.0.1:1", p, foreign)
			turns(t, l, "the failure", func() bool { return p.failed == 1 })
			return p.reason
		},
	} {
		if err := open(); !errors.Is(err, weir.ErrOtherLoop) {
			t.Errorf("%s with a tenant of another loop: %v", what, err)
		}
	}
}

// talker sends what it is given and keeps what it gets, or as much of it as use says.
type talker struct {
	weir.NopProtocol
	t      weir.Transport
	send   []byte
	got    int
	use    func(p []byte) int
	lost   bool
	reason error
}

func (p *talker) ConnectionMade(t weir.Transport) {
	p.t = t
	if p.send != nil {
		_, _ = t.Write(p.send)
	}
}

func (p *talker) DataReceived(b []byte) (int, error) {
	n := len(b)
	if p.use != nil {
		n = p.use(b)
	}
	p.got += n
	return n, nil
}
func (p *talker) ConnectionLost(err error) { p.lost, p.reason = true, err }

// TestTenantConnections: past the limit of connections, accepts are refused and reported,
// connects and attaches fail; a place that is free again is taken again (R80).
func TestTenantConnections(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l0 *weir.Loop) {
		var told []error
		l := newLoop(t, weir.WithBackendName(l0.Backend().Name), weir.WithErrorHandler(func(err error) {
			if refused := (*weir.AdmissionError)(nil); errors.As(err, &refused) {
				told = append(told, err)
			}
		}))
		defer l.Close()
		outer := l.NewTenant("outer")
		tn := outer.NewTenant("inner")
		if err := outer.SetLimits(weir.TenantLimits{Connections: 2}); err != nil {
			t.Fatal(err)
		}
		var made []*talker
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			made = append(made, &talker{})
			return made[len(made)-1]
		}, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		turn := 0
		peers := []*tenantConn{{t: t, turn: &turn}, {t: t, turn: &turn}, {t: t, turn: &turn}}
		for _, p := range peers {
			l.Connect("tcp", ln.Addr().String(), p)
		}
		lost := func() (n int) {
			for _, p := range peers {
				n += max(p.lost, p.failed)
			}
			return n
		}
		turns(t, l, "two connections and a refusal", func() bool { return len(made) == 2 && len(told) == 1 && lost() == 1 })
		var budget *weir.BudgetError
		var refused *weir.AdmissionError
		if !errors.As(told[0], &refused) || !errors.As(told[0], &budget) || budget.Tenant != "outer" || budget.Limit != 2 {
			t.Errorf("the refusal: %v", told[0])
		}
		p := &tenantConn{t: t, turn: new(int)}
		l.Connect("tcp", ln.Addr().String(), p, weir.WithTenant(tn))
		turns(t, l, "the connect", func() bool { return p.failed+p.made > 0 })
		if p.made > 0 || !errors.As(p.reason, &budget) {
			t.Errorf("a connect past the limit: made %d, %v", p.made, p.reason)
		}
		if s := outer.Stats(); s.Refused != 2 || s.Connections != 2 {
			t.Errorf("%+v", s)
		}
		made[0].t.Close()
		turns(t, l, "a free place", func() bool { return tn.Stats().Connections == 1 })
		again := &talker{}
		l.Connect("tcp", ln.Addr().String(), again)
		turns(t, l, "its taking", func() bool { return len(made) == 3 })
		outer.Close(nil)
		turns(t, l, "the end", func() bool { return outer.Stats().Connections == 0 && made[2].lost })
	})
}

// TestTenantBuffered: past the limit of bytes, reading pauses on every transport of the
// tenant, whoever filled it, and goes on when they have left; new connections are refused
// meanwhile; nothing is counted for ever (R80, G3).
func TestTenantBuffered(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		const limit = 256 << 10
		tn := l.NewTenant("one")
		if err := tn.SetLimits(weir.TenantLimits{Buffered: limit}); err != nil {
			t.Fatal(err)
		}
		var made []*talker
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			made = append(made, &talker{})
			return made[len(made)-1]
		}, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		slow, busy := &talker{}, &talker{}
		l.Connect("tcp", ln.Addr().String(), slow)
		turns(t, l, "the slow one", func() bool { return len(made) == 1 && slow.t != nil })
		l.Connect("tcp", ln.Addr().String(), busy)
		turns(t, l, "the busy one", func() bool { return len(made) == 2 && busy.t != nil })
		slow.t.PauseReading()
		for range 3 {
			_, _ = made[0].t.Write(make([]byte, 8<<20)) // more than the system takes
		}
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		over := tn.Stats().Buffered
		if over <= limit {
			t.Skip("the system took everything")
		}
		got := made[1].got
		_, _ = busy.t.Write(make([]byte, 64<<10))
		refused := &tenantConn{t: t, turn: new(int)}
		l.Connect("tcp", ln.Addr().String(), refused)
		turns(t, l, "the refusal", func() bool { return refused.lost+refused.failed > 0 })
		for range 10 {
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if made[1].got != got || len(made) != 2 {
			t.Errorf("over the limit %d bytes were read, there are %d connections", made[1].got-got, len(made))
		}
		slow.t.ResumeReading()
		turns(t, l, "the rest", func() bool { return made[1].got == got+64<<10 && slow.got == 24<<20 })
		turns(t, l, "nothing to be buffered", func() bool { return tn.Stats().Buffered == 0 })
		if s := tn.Stats(); s.BytesOut != 24<<20 || s.BytesIn != uint64(made[1].got) || s.Refused != 1 {
			t.Errorf("%+v", s)
		}
		tn.Close(nil)
		turns(t, l, "the end", func() bool { return l.Connections() == 0 })
	})
}

// TestTenantTails: tails that wait for more bytes than the budget has room for wait for
// ever: after a time the largest gives way, with a reason, and the others go on (R80, G10).
func TestTenantTails(t *testing.T) {
	sim := weirtest.NewSim(t, 1)
	l := sim.Host("one").Loop()
	tn := l.NewTenant("one")
	const limit = 160 << 10
	if err := tn.SetLimits(weir.TenantLimits{Buffered: limit}); err != nil {
		t.Fatal(err)
	}
	const whole = 60 << 10
	var made []*talker
	ln, err := l.Listen("tcp", ":1", func(weir.Transport) weir.Protocol {
		p := &talker{use: func(b []byte) int {
			if len(b) < whole {
				return 0 // not a whole frame yet
			}
			return whole
		}}
		made = append(made, p)
		return p
	}, weir.WithTenant(tn))
	if err != nil {
		t.Fatal(err)
	}
	peers := []*talker{{}, {}, {}}
	for i, p := range peers {
		p.send = make([]byte, whole-4096+i)
		l.Connect("tcp", sim.Host("one").Addr(1), p)
	}
	_ = ln
	sim.Until("the connections", func() bool { return len(made) == 3 || tn.Stats().Refused > 0 })
	sim.Until("one that gives way", func() bool {
		for _, p := range made {
			if p.lost {
				return true
			}
		}
		return false
	})
	lost := 0
	var budget *weir.BudgetError
	for _, p := range made {
		if p.lost {
			if lost++; !errors.As(p.reason, &budget) || budget.Used <= limit {
				t.Errorf("lost because of %v", p.reason)
			}
		}
	}
	if lost != 1 {
		t.Errorf("%d gave way", lost)
	}
	if now := sim.Now(); now < 5*time.Second || now > 6*time.Second {
		t.Errorf("after %v", now)
	}
	for _, p := range peers {
		if !p.lost && p.t != nil {
			_, _ = p.t.Write(make([]byte, 8192))
		}
	}
	sim.Until("whole frames", func() bool {
		n := 0
		for _, p := range made {
			n += p.got / whole
		}
		return n == len(made)-lost
	})
	tn.Close(nil)
	if err := sim.Run(nil); err != nil {
		t.Error(err)
	}
}

// TestTenantAdopt: a transport moves from its listener's tenant to another, with what it
// has buffered, and ends with that one (R70).
func TestTenantAdopt(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		door, shop := l.NewTenant("door"), l.NewTenant("shop")
		var p *talker
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			p = &talker{use: func([]byte) int { return 0 }}
			return p
		}, weir.WithTenant(door))
		if err != nil {
			t.Fatal(err)
		}
		peer := &talker{send: []byte("shop")}
		l.Connect("tcp", ln.Addr().String(), peer)
		turns(t, l, "the name", func() bool { return door.Stats().Buffered == 4 })
		if weir.TenantOf(p.t) != door {
			t.Error("it is not the door's")
		}
		if err := shop.Adopt(p.t); err != nil {
			t.Fatal(err)
		}
		for tn, n := range map[*weir.Tenant]int{door: 0, shop: 1} {
			if s := tn.Stats(); s.Connections != n || s.Buffered != 4*n {
				t.Errorf("%s: %+v", tn.Name(), s)
			}
		}
		door.Close(nil)
		for range 3 {
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		if p.lost || weir.TenantOf(p.t) != shop {
			t.Fatal("it ended with the door")
		}
		shop.Close(errBankrupt)
		turns(t, l, "its end", func() bool { return p.lost && peer.lost })
		if !errors.Is(p.reason, errBankrupt) || weir.TenantOf(p.t) != nil || !errors.Is(shop.Adopt(p.t), weir.ErrClosed) {
			t.Errorf("ended with %v", p.reason)
		}
	})
}

// TestTenantRedial: a Redialer with a tenant does not outlive it.
func TestTenantRedial(t *testing.T) {
	sim := weirtest.NewSim(t, 1)
	l := sim.Host("one").Loop()
	tn := l.NewTenant("one")
	attempts, again := 0, true
	l.Redial("tcp", sim.Host("one").Addr(9), weir.Backoff{}, func(r *weir.Redialer) weir.Protocol {
		attempts++
		return &redialing{r: r, again: &again}
	}, weir.WithTenant(tn))
	sim.Until("some attempts", func() bool { return attempts > 3 })
	tn.Close(nil)
	if err := sim.Run(nil); err != nil {
		t.Fatal(err)
	}
	if n := attempts; again && n > 5 {
		t.Errorf("%d attempts, and it goes on", n)
	}
}

type redialing struct {
	weir.NopProtocol
	r     *weir.Redialer
	again *bool
}

func (p *redialing) ConnectFailed(*weir.ConnectError) { _, *p.again = p.r.Again() }

// TestTenantSpliced: bytes that the kernel moves count for the tenant too, and waiting for
// its turn a splice loses none of them (R69).
func TestTenantSpliced(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		tn, other := share(t, l.NewTenant("one"), 1), share(t, l.NewTenant("other"), 1)
		defer tn.Close(nil)
		defer other.Close(nil)
		const size = 4 << 20
		var left, right weir.Transport
		end := &talker{}
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(tr weir.Transport) weir.Protocol {
			if left == nil {
				left = tr
			} else {
				right = tr
			}
			return weir.DataFunc(func(p []byte) (int, error) { return 0, nil })
		}, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		from := &talker{}
		l.Connect("tcp", ln.Addr().String(), from)
		turns(t, l, "the left side", func() bool { return left != nil && from.t != nil })
		l.Connect("tcp", ln.Addr().String(), end)
		turns(t, l, "the right side", func() bool { return right != nil && end.t != nil })
		if s, ok := left.(weir.Splicer); !ok || s.SpliceTo(right, func(int64, error) {}) != nil {
			t.Skip("this backend does not splice")
		}
		flood(other, 2, func() { spin(10 * time.Microsecond) })
		_, _ = from.t.Write(make([]byte, size))
		turns(t, l, "the bytes", func() bool { return end.got == size })
		turns(t, l, "their count", func() bool { s := tn.Stats(); return s.BytesIn == size && s.BytesOut == size })
	})
}

// TestTenantLayers: above layers too each end of a tenant is told once, in the turn of
// Close, with its reason; a handshake that is under way fails in the next turn (R70, R38).
func TestTenantLayers(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		turn := 0
		tn := l.NewTenant("one")
		up, under := &tenantConn{t: t, turn: &turn}, &tenantConn{t: t, turn: &turn}
		stack := []layer.Layer{layer.Idle(layer.IdleConfig{Idle: time.Hour}), layer.RateLimit(layer.Rate{}, layer.Rate{})}
		var far weir.Transport
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(tr weir.Transport) weir.Protocol {
			far = tr
			return weir.NopProtocol{}
		})
		if err != nil {
			t.Fatal(err)
		}
		l.Connect("tcp", ln.Addr().String(), layer.Client(up, stack...), weir.WithTenant(tn))
		turns(t, l, "the connection", func() bool { return up.made == 1 })
		far = nil
		l.Connect("tcp", ln.Addr().String(), layer.Client(under, layer.TLS(&tls.Config{ServerName: "x"})), weir.WithTenant(tn))
		turns(t, l, "the other, whose handshake gets no answer", func() bool { return far != nil && tn.Stats().BytesOut > 0 })
		if weir.TenantOf(up.tr) != tn {
			t.Error("a layer's transport is not its tenant's")
		}
		if s := tn.Stats(); s.Connections != 2 {
			t.Errorf("%d connections are counted, want 2: layers are none", s.Connections)
		}
		l.Soon(func() { tn.Close(errBankrupt) })
		turn = 1
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		turn = 2
		if up.lost != 1 || up.lostIn != 1 || !errors.Is(up.reason, errBankrupt) {
			t.Errorf("above layers: lost %d in turn %d: %v", up.lost, up.lostIn, up.reason)
		}
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		if under.failed != 1 || !errors.Is(under.reason, errBankrupt) {
			t.Errorf("in a handshake: failed %d in turn %d: %v", under.failed, under.lostIn, under.reason)
		}
		turns(t, l, "the end", func() bool { return tn.Stats().Connections == 0 })
		if up.lost != 1 || under.failed != 1 || under.made+under.lost != 0 {
			t.Errorf("told again: %+v %+v", up, under)
		}
	})
}
