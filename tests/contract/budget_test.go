package contract

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// hoarder answers what comes with many times as much. A deaf one also writes without
// being asked, and pays no heed to PauseWriting.
type hoarder struct {
	weir.NopProtocol
	t     weir.Transport
	times int
	deaf  bool
	lost  bool
	err   error
}

func (h *hoarder) ConnectionMade(t weir.Transport) {
	h.t = t
	if h.deaf {
		h.write()
	}
}

func (h *hoarder) write() {
	if !h.lost {
		_, _ = h.t.Write(make([]byte, 16<<10)) // an error comes with the loss
		h.t.Loop().Soon(h.write)
	}
}

func (h *hoarder) DataReceived(p []byte) (int, error) {
	p = p[:min(len(p), 1<<10)] // so that one callback writes little
	for range h.times {
		_, _ = h.t.Write(p)
	}
	return len(p), nil
}

func (h *hoarder) ConnectionLost(err error) { h.lost, h.err = true, err }

// guest sends without end if it is greedy, and reads nothing; else it sends a byte at a
// time and waits for the answer.
type guest struct {
	weir.NopProtocol
	t       weir.Transport
	greedy  bool
	answers int
	lost    bool
	err     error
}

func (c *guest) ConnectionMade(t weir.Transport) {
	c.t = t
	if c.greedy {
		t.PauseReading()
		c.flood()
		return
	}
	_, _ = t.Write([]byte{1})
}

func (c *guest) flood() {
	if !c.lost {
		if c.t.Buffered() < 64<<10 {
			_, _ = c.t.Write(make([]byte, 8<<10))
		}
		c.t.Loop().After(time.Millisecond, c.flood)
	}
}

func (c *guest) DataReceived(p []byte) (int, error) {
	c.answers++
	c.t.Loop().After(10*time.Millisecond, func() {
		if !c.lost {
			_, _ = c.t.Write([]byte{1})
		}
	})
	return len(p), nil
}

func (c *guest) ConnectionLost(err error) { c.lost, c.err = true, err }

// vault is a simulated world with servers on loops of their own that share a budget.
type vault struct {
	*weirtest.Sim
	b       *weir.Budget
	tenants []*weir.Tenant
	served  [][]*hoarder // by server
	peak    int
	stages  []weir.BudgetStage
}

// newVault makes n servers, "server0" and so on, which listen on port 7. make makes the
// protocol of the k-th connection of a server.
func newVault(t *testing.T, limits weir.BudgetLimits, n int, make func(server, k int) *hoarder) *vault {
	t.Helper()
	v := &vault{Sim: weirtest.NewSim(t, 1)}
	limits.Changed = func(s weir.BudgetStats) { v.stages = append(v.stages, s.Stage) }
	v.b = weir.NewBudget(limits)
	for i := range n {
		l := v.Host(fmt.Sprint("server", i)).Loop()
		tn := l.NewTenant("all")
		if err := tn.SetBudget(v.b); err != nil {
			t.Fatal(err)
		}
		v.tenants, v.served = append(v.tenants, tn), append(v.served, nil)
		_, err := l.Listen("tcp", ":7", func(weir.Transport) weir.Protocol {
			h := make(i, len(v.served[i]))
			v.served[i] = append(v.served[i], h)
			return h
		}, weir.WithTenant(tn), weir.WithWriteMarks(256<<10, 64<<10))
		if err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func (v *vault) dial(server int, greedy bool) *guest {
	c := &guest{greedy: greedy}
	v.Host("clients").Loop().Connect("tcp", fmt.Sprint("server", server, ":7"), c)
	return c
}

// keeps is what the servers really keep; peak is the most that it was.
func (v *vault) keeps() int {
	n := 0
	for _, t := range v.tenants {
		n += t.Stats().Buffered
	}
	v.peak = max(v.peak, n)
	if n > v.b.Stats().Buffered {
		panic(fmt.Sprintf("%d bytes are kept, and %d counted", n, v.b.Stats().Buffered))
	}
	return n
}

// runFor lets d pass, and looks at what is kept at each step.
func (v *vault) runFor(d time.Duration) {
	end := v.WallNow().Add(d)
	v.Until("the end", func() bool { v.keeps(); return !v.WallNow().Before(end) })
}

const mebi = 1 << 20

// TestBudgetPauses: greedy connections are paused long before the budget is used up, on
// all loops together, and an innocent one goes on as if they were not there.
func TestBudgetPauses(t *testing.T) {
	v := newVault(t, weir.BudgetLimits{Buffered: 2 * mebi}, 2, func(int, int) *hoarder { return &hoarder{times: 8} })
	innocent := v.dial(0, false)
	var greedy []*guest
	for i := range 6 {
		greedy = append(greedy, v.dial(i%2, true))
	}
	v.runFor(3 * time.Second)
	// Without the budget each would have its high mark of 256 KiB, and 64 KiB that were read:
	// 15/16 of the limit. With it, those that came after the half was used have 64 KiB.
	if s := v.b.Stats(); s.Stage != weir.BudgetPausing || s.Paused < 2 || s.Reset != 0 || s.Refused != 0 {
		t.Errorf("%+v", s)
	}
	if least, most := mebi, mebi+mebi/2; v.peak < least || v.peak > most {
		t.Errorf("at most %d bytes were kept, want from %d to %d", v.peak, least, most)
	}
	if innocent.answers < 250 {
		t.Errorf("the innocent one got %d answers in 3 s, want one every 10 ms", innocent.answers)
	}
	for _, c := range greedy {
		c.t.ResumeReading()
	}
	v.Until("less pressure", func() bool { v.keeps(); return v.b.Stats().Stage == weir.BudgetFree })
	for _, c := range greedy {
		c.t.Abort()
	}
	v.Until("nothing", func() bool { return v.keeps() == 0 && v.b.Stats().Connections == 1 })
	innocent.t.Abort()
	v.Until("no one", func() bool { return v.b.Stats().Connections == 0 })
	if err := v.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	if n := v.b.Stats().Buffered; n != 0 {
		t.Errorf("%d bytes are counted for nothing", n)
	}
	if len(v.stages) < 2 || v.stages[0] != weir.BudgetPausing || v.stages[len(v.stages)-1] != weir.BudgetFree {
		t.Errorf("the stages were %v", v.stages)
	}
}

// TestBudgetResets: connections whose server writes whatever it is told are reset as soon
// as the limit is reached, on whichever loop they are, and those that keep less are not.
func TestBudgetResets(t *testing.T) {
	const limit, loops = mebi, 3
	v := newVault(t, weir.BudgetLimits{Buffered: limit}, loops, func(server, k int) *hoarder {
		return &hoarder{times: 4, deaf: server == 2 && k == 0}
	})
	var innocent []*guest
	for i := range 12 {
		innocent = append(innocent, v.dial(i%2, false))
	}
	modest := v.dial(0, true) // it keeps something too, but less
	v.runFor(300 * time.Millisecond)
	deaf := v.dial(2, false)
	deaf.greedy = true
	v.Until("the reset", func() bool { v.keeps(); return len(v.served[2]) > 0 && v.served[2][0].lost })
	v.runFor(time.Second)
	var over *weir.BudgetError
	if err := v.served[2][0].err; !errors.As(err, &over) || over.Tenant != "" || over.Limit != limit || over.What != "buffered bytes" {
		t.Errorf("it was lost with %v", err)
	}
	if s := v.b.Stats(); s.Reset != 1 {
		t.Errorf("%d were reset: %+v", s.Reset, s)
	}
	for _, c := range append(innocent, modest) {
		if c.lost {
			t.Errorf("one that keeps less was lost: %v", c.err)
		}
	}
	// What one turn writes before the round is over, and the room that two other loops hold.
	if slack := 64 << 10; v.peak > limit+slack {
		t.Errorf("%d bytes were kept, the limit is %d", v.peak, limit)
	}
	v.Failures = nil
}

// TestBudgetConnections: connections beyond the budget's number are refused, on all loops
// together and with the reason, and there is room again when others have left.
func TestBudgetConnections(t *testing.T) {
	v := newVault(t, weir.BudgetLimits{Connections: 10}, 2, func(int, int) *hoarder { return &hoarder{times: 1} })
	var all []*guest
	for i := range 15 {
		all = append(all, v.dial(i%2, false))
	}
	lost := func() (n int) {
		for _, c := range all {
			if c.lost {
				n++
			}
		}
		return n
	}
	v.Until("the refusals", func() bool { return lost() == 5 })
	if s := v.b.Stats(); s.Connections != 10 || s.Full != 5 || s.Refused != 0 {
		t.Errorf("%+v", s)
	}
	var refused *weir.AdmissionError
	var over *weir.BudgetError
	if len(v.Failures) == 0 || !errors.As(v.Failures[0], &refused) || !errors.As(refused, &over) || over.Used != 10 || over.Limit != 10 {
		t.Errorf("reported %v", v.Failures)
	}
	for _, c := range all {
		c.t.Abort()
	}
	v.Until("room", func() bool { return v.b.Stats().Connections == 0 })
	all = []*guest{v.dial(1, false)}
	v.Until("an answer", func() bool { return all[0].answers > 0 })
	v.Failures = nil
}

// TestBudgetRefuses: while most of the budget is used, new connections are refused; if it
// stays so, the largest are reset, and then others are served again.
func TestBudgetRefuses(t *testing.T) {
	v := newVault(t, weir.BudgetLimits{Buffered: mebi}, 2, func(int, int) *hoarder { return &hoarder{times: 8} })
	var greedy []*guest
	for i := range 200 {
		greedy = append(greedy, v.dial(i%2, true))
	}
	v.Until("most of it is used", func() bool { v.keeps(); return v.b.Stats().Stage >= weir.BudgetRefusing })
	late := v.dial(0, false)
	v.Until("the refusal", func() bool { v.keeps(); return late.lost })
	if s := v.b.Stats(); s.Refused == 0 {
		t.Errorf("%+v", s)
	}
	for _, c := range greedy { // no more is asked for
		c.greedy = false
		c.lost = true
	}
	v.Until("resets", func() bool { v.keeps(); return v.b.Stats().Reset > 0 })
	v.Until("room", func() bool { v.keeps(); return v.b.Stats().Stage < weir.BudgetRefusing })
	again := v.dial(0, false)
	v.Until("an answer", func() bool { return again.answers > 0 })
	if most := mebi + 2*4*64<<10; v.peak > most { // see BudgetLimits.Buffered
		t.Errorf("%d bytes were kept, want at most %d", v.peak, most)
	}
	v.Failures = nil
}

// TestBudgetClose: a loop or a tenant that is closed gives back what it had, and others
// that share the budget go on.
func TestBudgetClose(t *testing.T) {
	v := newVault(t, weir.BudgetLimits{Buffered: mebi, Connections: 100}, 2, func(int, int) *hoarder { return &hoarder{times: 8} })
	for i := range 10 {
		v.dial(i%2, true)
	}
	v.runFor(time.Second)
	if v.keeps() == 0 {
		t.Fatal("nothing is kept")
	}
	v.tenants[0].Close(nil)
	v.Until("the end of one", func() bool { return v.tenants[0].Stats().Connections == 0 })
	left := 0
	for _, h := range v.served[1] {
		if !h.lost {
			left++
		}
	}
	if n := v.b.Stats().Connections; left == 0 || n != left {
		t.Errorf("%d connections are counted, %d are open", n, left)
	}
	if err := v.tenants[0].SetBudget(v.b); !errors.Is(err, weir.ErrTenantClosed) {
		t.Errorf("SetBudget of a closed tenant: %v", err)
	}
	if n := v.tenants[1].Stats().Buffered; v.b.Stats().Buffered < n || v.b.Stats().Buffered > n+128<<10 {
		t.Errorf("%d are counted, the other keeps %d", v.b.Stats().Buffered, n)
	}
	if err := v.tenants[1].SetBudget(nil); err != nil {
		t.Fatal(err)
	}
	if n := v.b.Stats().Buffered; n != 0 {
		t.Errorf("%d are counted for no one", n)
	}
}

// TestBudgetGroup: two loops on threads of their own share a budget: what is kept stays
// under it while 100 clients read nothing, and others are answered (with -race too).
func TestBudgetGroup(t *testing.T) {
	onBackends(t, func(t *testing.T, name string) {
		const limit = 4 * mebi
		b := weir.NewBudget(weir.BudgetLimits{Buffered: limit, Connections: 200})
		g, err := weir.NewGroup(2, weir.WithBackendName(name), quiet(), weir.WithBudget(b))
		if err != nil {
			t.Fatal(err)
		}
		ln, err := g.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return &hoarder{times: 64} }, weir.WithSocketBuffers(8<<10, 8<<10))
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().String()
		ended := make(chan error, 1)
		go func() { ended <- g.Run() }()
		var all []net.Conn
		for range 100 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				continue // refused
			}
			all = append(all, c)
			_, _ = c.Write(make([]byte, 8<<10)) // likewise
		}
		deadline := time.Now().Add(patience)
		peak := 0
		for b.Stats().Paused == 0 {
			peak = max(peak, b.Stats().Buffered)
			if time.Now().After(deadline) {
				t.Fatalf("no one was paused: %+v", b.Stats())
			}
			c, err := net.Dial("tcp", addr)
			if err != nil {
				continue // refused
			}
			_ = c.SetDeadline(deadline)
			p := make([]byte, 1)
			_, _ = c.Write(p)
			_, _ = c.Read(p)
			_ = c.Close()
		}
		if peak > limit+limit/2 {
			t.Errorf("%d bytes, the limit is %d", peak, limit)
		}
		for _, c := range all {
			_ = c.Close()
		}
		for b.Stats().Connections > 0 {
			if time.Now().After(deadline) {
				t.Fatalf("some stay: %+v", b.Stats())
			}
			c, err := net.Dial("tcp", addr) // a moment passes
			if err == nil {
				_ = c.Close()
			}
		}
		g.Stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if s := b.Stats(); s.Buffered != 0 || s.Connections != 0 {
			t.Errorf("%+v", s)
		}
	})
}
