package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// bank is one seed: two servers on loops of their own that share a budget, clients that
// read nothing, and clients that ask for little and read it.
type bank struct {
	testing.TB
	sim      *weirtest.Sim
	r        *rand.Rand
	b        *weir.Budget
	tenants  []*weir.Tenant
	slack    int
	paused   uint64
	reset    uint64
	answers  int
	peak     int  // in 1/1000 of the limit
	over     bool // the clients are to leave
	problems []string
	cleanups []func()
}

func (k *bank) Cleanup(f func())             { k.cleanups = append(k.cleanups, f) }
func (k *bank) Errorf(f string, args ...any) { k.bad(f, args...) }
func (k *bank) Error(args ...any)            { k.bad("%s", fmt.Sprint(args...)) }
func (k *bank) Failed() bool                 { return false } // explained by the caller
func (k *bank) Log(...any)                   {}
func (k *bank) Logf(string, ...any)          {}
func (k *bank) Helper()                      {}

func (k *bank) bad(format string, args ...any) {
	k.problems = append(k.problems, fmt.Sprintf("%v: ", k.sim.Now())+fmt.Sprintf(format, args...))
}

// step checks what holds at each step.
func (k *bank) step() {
	kept := 0
	for _, t := range k.tenants {
		kept += t.Stats().Buffered
	}
	s := k.b.Stats()
	limit := k.b.Limits()
	if kept > s.Buffered {
		k.bad("%d bytes are kept, and only %d counted", kept, s.Buffered)
	}
	if kept > limit.Buffered+k.slack {
		k.bad("%d bytes are kept, the limit is %d", kept, limit.Buffered)
	}
	if s.Connections > limit.Connections || s.Connections < 0 {
		k.bad("%d connections, the limit is %d", s.Connections, limit.Connections)
	}
	k.peak = max(k.peak, 1000*kept/limit.Buffered)
}

// cashier is a server's end. What a client wants is its first byte.
type cashier struct {
	weir.NopProtocol
	k     *bank
	t     weir.Transport
	wants byte
	lost  bool
}

// What a client wants.
const (
	wantsEcho  = 1 + iota
	wantsMuch  // eight times what it sent
	wantsFlood // what comes without being asked for, whatever the marks say
)

func (c *cashier) ConnectionMade(t weir.Transport) { c.t = t }

func (c *cashier) DataReceived(p []byte) (int, error) {
	if c.wants == 0 {
		if c.wants = p[0]; c.wants == wantsFlood {
			c.flood()
		}
	}
	p = p[:min(len(p), 1<<10)]
	times := 1
	if c.wants == wantsMuch {
		times = 8
	}
	for range times {
		_, _ = c.t.Write(p) // an error comes with the loss
	}
	return len(p), nil
}

func (c *cashier) flood() {
	if c.lost {
		return
	}
	if _, err := c.t.Write(make([]byte, 4<<10)); err == nil {
		c.t.Loop().After(20*time.Microsecond, c.flood)
	}
}

func (c *cashier) ConnectionLost(err error) {
	c.lost = true
	var over *weir.BudgetError
	if c.wants == wantsEcho && errors.As(err, &over) {
		c.k.bad("one that keeps little was reset: %v", err)
	}
}

// customer is a client's end.
type customer struct {
	weir.NopProtocol
	k       *bank
	t       weir.Transport
	wants   byte
	lost    bool
	answers int
}

func (c *customer) ConnectionMade(t weir.Transport) {
	c.t = t
	if c.k.over {
		t.Abort()
		return
	}
	if c.wants != wantsEcho {
		t.PauseReading()
	}
	c.send()
}

func (c *customer) send() {
	if c.lost {
		return
	}
	p := []byte{c.wants}
	if c.wants == wantsMuch {
		p = make([]byte, 4<<10)
		p[0] = c.wants
	}
	if c.t.Buffered() < 64<<10 {
		_, _ = c.t.Write(p)
	}
	if c.wants != wantsEcho {
		c.t.Loop().After(5*time.Millisecond, c.send)
	}
}

func (c *customer) DataReceived(p []byte) (int, error) {
	c.k.answers++
	c.answers++
	c.t.Loop().After(20*time.Millisecond, c.send)
	return len(p), nil
}

func (c *customer) ConnectionLost(error)             { c.lost = true }
func (c *customer) ConnectFailed(*weir.ConnectError) { c.lost = true }

func (k *bank) dial(wants byte) *customer {
	c := &customer{k: k, wants: wants}
	k.sim.Host("clients").Loop().Connect("tcp", fmt.Sprint("server", k.r.IntN(2), ":7"), c)
	return c
}

func runBank(tb testing.TB, seed uint64) *bank {
	k := &bank{TB: tb, r: rand.New(rand.NewPCG(seed, 16))}
	k.sim = weirtest.NewSim(k, seed, weirtest.WithSwarm())
	floods := k.r.IntN(3)
	k.b = weir.NewBudget(weir.BudgetLimits{Buffered: 256 << 10 << k.r.IntN(4), Connections: 10 + k.r.IntN(100)})
	// For each loop: what it had read, what takes room in advance is not kept, and what
	// those that flood write until the loops have named their largest.
	k.slack = 2 * (4*64<<10 + floods*64<<10)
	for i := range 2 {
		l := k.sim.Host(fmt.Sprint("server", i)).Loop()
		t := l.NewTenant("all")
		if err := t.SetBudget(k.b); err != nil {
			tb.Fatal(err)
		}
		k.tenants = append(k.tenants, t)
		var err error
		for range 500 { // with patience for drawn shortages
			_, err = l.Listen("tcp", ":7", func(weir.Transport) weir.Protocol { return &cashier{k: k} }, weir.WithTenant(t))
			if err == nil {
				break
			}
		}
		if err != nil {
			k.bad("cannot listen: %v", err)
		}
	}
	k.sim.OnStep(k.step)
	var all []*customer
	for range 1 + k.r.IntN(5) {
		all = append(all, k.dial(wantsEcho))
	}
	for range 1 + k.r.IntN(60) {
		all = append(all, k.dial(wantsMuch))
	}
	for range floods {
		all = append(all, k.dial(wantsFlood))
	}
	if err := k.sim.RunFor(time.Duration(k.r.Int64N(int64(6 * time.Second)))); err != nil {
		k.bad("with faults: %v", err)
	}
	k.sim.HealAll()
	k.over = true
	for _, c := range all {
		if c.t != nil {
			c.t.Abort()
		}
	}
	left := func() bool {
		for _, c := range all {
			if c.t == nil && !c.lost {
				return false // it is still connecting
			}
		}
		return k.b.Stats().Connections == 0
	}
	if err := k.sim.Run(left); err != nil {
		k.bad("the connections stay: %v (%+v)", err, k.b.Stats())
	}
	if err := k.sim.RunFor(time.Minute); err != nil { // some are only now accepted
		k.bad("healed: %v", err)
	}
	s := k.b.Stats()
	room := 2 * 2 * k.b.Limits().Buffered / 256 // what each loop may have taken and not used
	if s.Buffered >= room || s.Connections != 0 || s.Stage != weir.BudgetFree {
		k.bad("at rest: %+v (G6)", s)
	}
	k.paused, k.reset = s.Paused, s.Reset
	k.over = false
	last := k.dial(wantsEcho)
	if err := k.sim.Run(func() bool { return last.answers > 0 || last.lost }); err != nil || last.lost {
		k.bad("no one is served any more: %v (G10)", err)
	}
	for _, t := range k.tenants {
		t.Close(nil)
	}
	if err := k.sim.RunFor(time.Second); err != nil {
		k.bad("closed: %v", err)
	}
	if s := k.b.Stats(); s.Buffered != 0 || s.Connections != 0 {
		k.bad("after the tenants: %+v (G6)", s)
	}
	var failures []error
	for _, err := range k.sim.Failures {
		var refused *weir.AdmissionError
		var accept *weir.AcceptError
		if !errors.As(err, &refused) && !errors.As(err, &accept) {
			failures = append(failures, err)
		}
	}
	k.sim.Failures = failures
	for _, f := range k.cleanups {
		f()
	}
	return k
}

// TestSeedsBudget: whatever the faults, two loops that share a budget never keep more than its
// limit and a stated slack, count no less than they keep, reset no connection that keeps
// little, and give everything back (G3, G6, G10).
func TestSeedsBudget(t *testing.T) {
	first, n := *simFirst, (seedCount()+2)/3
	if seed, ok := weirtest.Seed(); ok {
		first, n = seed, 1
	}
	paused, reset, answers, peak := uint64(0), uint64(0), 0, 0
	for seed := first; seed < first+n; seed++ {
		k := runBank(t, seed)
		paused, reset, answers, peak = paused+k.paused, reset+k.reset, answers+k.answers, max(peak, k.peak)
		if len(k.problems) > 0 {
			for _, p := range k.problems[:min(len(k.problems), 10)] {
				t.Error(p)
			}
			k.sim.ExplainTo(t)
			return
		}
	}
	t.Logf("%d seeds: %d paused, %d reset, %d answers; at most %d.%d %% of a limit", n, paused, reset, answers, peak/10, peak%10)
	if n > 50 && (paused == 0 || reset == 0 || answers == 0) {
		t.Error("no one was ever paused, reset or answered")
	}
}
