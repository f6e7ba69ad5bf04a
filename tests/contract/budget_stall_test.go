package contract

import (
	"errors"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

// sluggard reads one piece every so often, or nothing.
type sluggard struct {
	weir.NopProtocol
	t     weir.Transport
	every time.Duration // 0: it reads nothing
	lost  bool
}

func (c *sluggard) ConnectionMade(t weir.Transport) {
	c.t = t
	t.PauseReading()
	c.later()
}

func (c *sluggard) later() {
	if c.every > 0 {
		c.t.Loop().After(c.every, c.t.ResumeReading)
	}
}

func (c *sluggard) DataReceived(p []byte) (int, error) {
	c.t.PauseReading()
	c.later()
	return len(p), nil
}

func (c *sluggard) ConnectionLost(error) { c.lost = true }

// pourer writes much at once, and perhaps closes.
type pourer struct {
	talker
	closes bool
}

func (p *pourer) ConnectionMade(t weir.Transport) {
	p.talker.ConnectionMade(t)
	if p.closes {
		_ = t.Close() // it is not lost yet
	}
}

// TestBudgetStall: a connection to a peer that accepts nothing is lost after Stall, open or
// closing, through a layer too, and again after all was quiet; one to a peer that accepts a
// little now and then is not, and neither is a pipe.
func TestBudgetStall(t *testing.T) {
	const stall = 10 * time.Second
	s := weirtest.NewSim(t, 1)
	b := weir.NewBudget(weir.BudgetLimits{Stall: stall})
	host := s.Host("server")
	l := host.NewLoop(weir.WithBudget(b))
	for _, c := range []struct {
		name   string
		every  time.Duration
		closes bool
		layers []layer.Layer
		lost   bool
	}{
		{"nothing is read", 0, false, nil, true},
		{"something is read", stall * 3 / 4, false, nil, false},
		{"closing", 0, true, nil, true},
		{"closing, and something is read", stall * 3 / 4, true, nil, false},
		{"through a layer", 0, false, []layer.Layer{layer.RateLimit(layer.Rate{}, layer.Rate{})}, true},
	} {
		was := b.Stats().Stalled
		p := &pourer{talker: talker{send: make([]byte, 8*mebi)}, closes: c.closes}
		ln, err := l.Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol { return p }, c.layers...))
		if err != nil {
			t.Fatal(err)
		}
		client := &sluggard{every: c.every}
		s.Host("client").Loop().Connect("tcp", "server:7", client)
		s.Until("the connection", func() bool { return client.t != nil && p.t != nil })
		if err := s.RunFor(stall - time.Second); err != nil {
			t.Fatal(err)
		}
		if p.lost {
			t.Errorf("%s: it was lost before its time: %v", c.name, p.reason)
		}
		if err := s.RunFor(stall); err != nil {
			t.Fatal(err)
		}
		var stalled *weir.StallError
		switch n := b.Stats().Stalled - was; {
		case p.lost != c.lost:
			t.Errorf("%s: lost %v: %v", c.name, p.lost, p.reason)
		case c.lost && (!errors.As(p.reason, &stalled) || stalled.After != stall || stalled.Waiting <= 0 || n != 1):
			t.Errorf("%s: lost with %v, %d counted", c.name, p.reason, n)
		case !c.lost && n != 0:
			t.Errorf("%s: %d counted", c.name, n)
		}
		client.t.Abort()
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		s.Until("the end", func() bool { return p.lost && client.lost })
		if err := s.RunFor(2 * stall); err != nil { // nothing waits, and no one looks any more
			t.Fatal(err)
		}
	}
	r, w, err := host.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &pourer{talker: talker{send: make([]byte, mebi)}}
	if _, err := l.Attach(w, "out", func(weir.Transport) weir.Protocol { return p }); err != nil {
		t.Fatal(err)
	}
	if err := s.RunFor(3 * stall); err != nil {
		t.Fatal(err)
	}
	if p.lost || p.t.Buffered() == 0 {
		t.Errorf("a pipe: lost %v: %v", p.lost, p.reason)
	}
	p.t.Abort()
	host.CloseDescriptors(r)
	s.Until("the end of the pipe", func() bool { return p.lost })
}

// TestBudgetStallSpliced: a peer that accepts nothing of what is spliced to it counts as one
// that accepts nothing of what was written.
func TestBudgetStallSpliced(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		const stall = 200 * time.Millisecond
		b := weir.NewBudget(weir.BudgetLimits{Stall: stall})
		tn := l.NewTenant("one")
		defer tn.Close(nil)
		if err := tn.SetBudget(b); err != nil {
			t.Fatal(err)
		}
		var ends []*talker
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			ends = append(ends, &talker{})
			return ends[len(ends)-1]
		}, weir.WithTenant(tn))
		if err != nil {
			t.Fatal(err)
		}
		from, deaf := &guest{greedy: true}, &sluggard{}
		l.Connect("tcp", ln.Addr().String(), deaf)
		turns(t, l, "the right side", func() bool { return len(ends) == 1 && deaf.t != nil })
		source := &talker{}
		l.Connect("tcp", ln.Addr().String(), source)
		turns(t, l, "the left side", func() bool { return len(ends) == 2 && source.t != nil })
		right, left := ends[0], ends[1]
		var why error
		if s, ok := left.t.(weir.Splicer); !ok || s.SpliceTo(right.t, func(_ int64, err error) { why = err }) != nil {
			t.Skip("this backend does not splice")
		}
		from.ConnectionMade(source.t) // it sends without end
		turns(t, l, "the stall", func() bool { return right.lost })
		var stalled *weir.StallError
		if !errors.As(right.reason, &stalled) || stalled.Waiting <= 0 || b.Stats().Stalled != 1 {
			t.Errorf("lost with %v, %d counted", right.reason, b.Stats().Stalled)
		}
		turns(t, l, "the end of the splice", func() bool { return why != nil })
		if !errors.Is(why, weir.ErrStalled) {
			t.Errorf("the splice ended with %v", why)
		}
		from.lost = true
		source.t.Abort()
		deaf.t.Abort()
		turns(t, l, "the end", func() bool { return source.lost && deaf.lost && left.lost })
	})
}

// TestBudgetLayers: with a budget of the loop and a tenant of the connection, a layer's
// transport belongs to the tenant alone: nothing keeps it in memory after its end.
func TestBudgetLayers(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	l := s.Host("server").NewLoop(weir.WithBudget(weir.NewBudget(weir.BudgetLimits{Buffered: mebi})))
	tn := l.NewTenant("one")
	var made []weak.Pointer[ahead]
	lost := 0
	noted := func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			e := &ahead{}
			made = append(made, weak.Make(e))
			return e.Init(e, "ahead", a)
		}}
	}
	_, err := l.Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol {
		return &endNoted{lost: &lost, data: func() {}}
	}, noted), weir.WithTenant(tn))
	if err != nil {
		t.Fatal(err)
	}
	const n = 50
	for range n {
		c := &sluggard{}
		s.Host("client").Loop().Connect("tcp", "server:7", c)
		was := len(made)
		s.Until("the connection", func() bool { return c.t != nil && len(made) > was })
		c.t.Abort()
		s.Until("its end", func() bool { return lost == was+1 })
	}
	if err := s.RunFor(time.Minute); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.GC()
	kept := 0
	for _, p := range made {
		if p.Value() != nil {
			kept++
		}
	}
	if kept > n/5 { // a queue may still name the last ones
		t.Errorf("%d of %d connections that have ended are in memory", kept, n)
	}
	runtime.KeepAlive(l)
}

// TestBudgetEases: when the tenant that has used a budget up is closed, or leaves it, others
// that share the budget are served at once.
func TestBudgetEases(t *testing.T) {
	for name, leave := range map[string]func(*weir.Tenant){
		"closed": func(tn *weir.Tenant) { tn.Close(nil) },
		"left":   func(tn *weir.Tenant) { _ = tn.SetBudget(nil) }, // it is open
	} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t, weir.BudgetLimits{Buffered: mebi}, 2, func(int, int) *hoarder { return &hoarder{times: 8} })
			for range 200 {
				v.dial(0, true)
			}
			v.Until("most of it is used", func() bool { v.keeps(); return v.b.Stats().Stage >= weir.BudgetRefusing })
			leave(v.tenants[0])
			if err := v.RunFor(100 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if s := v.b.Stats(); s.Stage != weir.BudgetFree || s.Buffered != 0 {
				t.Errorf("%+v", s)
			}
			c := v.dial(1, false)
			v.Until("an answer", func() bool { return c.answers > 0 || c.lost })
			if c.lost {
				t.Errorf("another was refused: %v", c.err)
			}
			if last := v.stages[len(v.stages)-1]; last != weir.BudgetFree {
				t.Errorf("Changed was told %v", v.stages)
			}
			v.tenants[0].Close(nil)
			v.Failures = nil
		})
	}
}

// TestBudgetTwice: a budget counts no byte twice.
func TestBudgetTwice(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	b, other := weir.NewBudget(weir.BudgetLimits{Buffered: mebi}), weir.NewBudget(weir.BudgetLimits{})
	l := s.Host("server").NewLoop(weir.WithBudget(b))
	outer := l.NewTenant("outer")
	inner := outer.NewTenant("inner").NewTenant("innermost")
	var bad *weir.OptionError
	if err := inner.SetBudget(b); !errors.As(err, &bad) {
		t.Errorf("the loop's own: %v", err)
	}
	if err := inner.SetBudget(other); err != nil {
		t.Fatal(err)
	}
	if err := outer.SetBudget(other); !errors.As(err, &bad) {
		t.Errorf("one that is used inside: %v", err)
	}
	if err := inner.SetBudget(nil); err != nil {
		t.Fatal(err)
	}
	if err := outer.SetBudget(other); err != nil {
		t.Errorf("one that is free again: %v", err)
	}
}

// TestBudgetRoom: a writer that has nothing in its buffer has room for something, though the
// limit is reached: it would wait for a ResumeWriting that does not come.
func TestBudgetRoom(t *testing.T) {
	v := newVault(t, weir.BudgetLimits{Buffered: mebi}, 2, func(server, _ int) *hoarder { return &hoarder{times: 1, deaf: server == 1} })
	modest := v.dial(0, false)
	v.Until("an answer", func() bool { return modest.answers > 0 })
	deaf := v.dial(1, false)
	deaf.greedy = true
	looked := 0
	v.Until("the limit", func() bool {
		v.keeps()
		if v.b.Stats().Buffered >= mebi {
			looked++
			if h := v.served[0][0].t; h.Buffered() == 0 && h.Room() <= 0 {
				t.Fatal("there is no room, and nothing to wait for")
			}
		}
		return looked > 0
	})
	v.Failures = nil
}
