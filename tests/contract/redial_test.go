package contract

import (
	"errors"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// caller is a protocol that wants to be connected again, whatever happens.
type caller struct {
	weir.NopProtocol
	r      *weir.Redialer
	made   int
	errs   []*weir.ConnectError
	lost   []error
	waits  []time.Duration
	refuse bool // do not ask again
	gaveUp bool
	t      weir.Transport
}

func (c *caller) ConnectionMade(t weir.Transport) { c.made++; c.t = t }

func (c *caller) ConnectionLost(err error) { c.lost = append(c.lost, err); c.again() }

func (c *caller) ConnectFailed(err *weir.ConnectError) { c.errs = append(c.errs, err); c.again() }

func (c *caller) again() {
	if c.refuse {
		return
	}
	wait, ok := c.r.Again()
	if again, still := c.r.Again(); ok && (again != wait || !still) {
		panic("asked twice, answered twice")
	}
	c.gaveUp = !ok
	if ok {
		c.waits = append(c.waits, wait)
	}
}

func redial(l *weir.Loop, address string, b weir.Backoff, c *caller) {
	c.r = l.Redial("tcp", address, b, func(r *weir.Redialer) weir.Protocol { c.r = r; return c })
}

// TestRedialBackoff: waits grow by the factor up to the maximum, exactly if
// there is no jitter, and each failure says which attempt it was (R43, R45).
func TestRedialBackoff(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	client, server := s.Host("client"), s.Host("server")
	c := &caller{}
	redial(client.Loop(), server.Addr(1), weir.Backoff{First: time.Second, Most: 5 * time.Second, Jitter: -1, Tries: 6}, c)
	s.Until("it gave up", func() bool { return c.gaveUp })
	want := []time.Duration{1, 2, 4, 5, 5}
	if len(c.waits) != len(want) {
		t.Fatalf("waits: %v", c.waits)
	}
	for i, w := range want {
		if c.waits[i] != w*time.Second {
			t.Errorf("wait %d is %v, want %vs", i+1, c.waits[i], int(w))
		}
	}
	for i, err := range c.errs {
		if err.Attempt != i+1 || len(err.Attempts) != 1 {
			t.Errorf("failure %d: attempt %d, %v", i+1, err.Attempt, err)
		}
	}
}

// TestRedialJitter: a wait lies between its share and the whole, and the same
// generator draws the same waits.
func TestRedialJitter(t *testing.T) {
	run := func() []time.Duration {
		s := weirtest.NewSim(t, 1)
		defer s.Close()
		x := 0.0
		c := &caller{}
		b := weir.Backoff{First: time.Second, Most: time.Minute, Jitter: 0.5, Tries: 8, Rand: func() float64 {
			x += 0.37
			return x - float64(int(x))
		}}
		redial(s.Host("client").Loop(), s.Host("server").Addr(1), b, c)
		s.Until("it gave up", func() bool { return c.gaveUp })
		return c.waits
	}
	a, b := run(), run()
	whole := time.Second
	for i, w := range a {
		if w != b[i] {
			t.Errorf("wait %d: %v and %v", i+1, w, b[i])
		}
		if w < whole/2 || w > whole {
			t.Errorf("wait %d is %v, want half to all of %v", i+1, w, whole)
		}
		whole = min(2*whole, time.Minute)
	}
	if len(a) != 7 {
		t.Errorf("%d waits", len(a))
	}
}

// TestRedialServerRestarts: the connection is lost, the server is away, comes
// back, and is found. A connection that has settled ends the run of failures; one
// that is lost at once does not.
func TestRedialServerRestarts(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	client, server := s.Host("client"), s.Host("server")
	var peers []weir.Transport
	listen := func() *weir.Listener {
		ln, err := server.Loop().Listen("tcp", server.Addr(7000), func(t weir.Transport) weir.Protocol {
			peers = append(peers, t)
			return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	ln := listen()
	c := &caller{}
	redial(client.Loop(), server.Addr(7000), weir.Backoff{First: time.Second, Jitter: -1, Settled: time.Minute}, c)
	s.Until("it is connected", func() bool { return c.made == 1 && len(peers) == 1 })

	peers[0].Abort() // lost at once: one failure, and the next is the second
	_ = ln.Close()
	s.Until("two attempts were refused", func() bool { return len(c.errs) == 2 })
	if n := c.r.Failures(); n != 3 {
		t.Errorf("%d failures in a row, want 3", n)
	}
	listen()
	s.Until("it is connected again", func() bool { return c.made == 2 && len(peers) == 2 })
	if err := s.RunFor(2 * time.Minute); err != nil {
		t.Fatal(err)
	}
	c.waits = nil
	peers[1].Abort()
	s.Until("it is connected a third time", func() bool { return c.made == 3 })
	if c.waits[0] != time.Second || c.r.Failures() != 1 {
		t.Errorf("after a connection that settled: waits %v, %d failures", c.waits, c.r.Failures())
	}
	c.refuse = true
	c.t.Abort()
	s.Until("it is lost", func() bool { return len(c.lost) == 3 })
	if err := s.RunFor(time.Hour); err != nil {
		t.Fatal(err)
	}
	if c.made != 3 {
		t.Error("connected although nobody asked")
	}
}

// TestRedialStop: Stop works at any moment, and a connect in progress reports it (69).
func TestRedialStop(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	client, server := s.Host("client"), s.Host("server")
	c := &caller{}
	redial(client.Loop(), server.Addr(1), weir.Backoff{First: time.Hour}, c)
	c.r.Stop()
	s.Until("the connect is over", func() bool { return len(c.errs) == 1 })
	if !errors.Is(c.errs[0], weir.ErrStopped) || !c.gaveUp {
		t.Errorf("%v, gave up %v", c.errs[0], c.gaveUp)
	}
	d := &caller{}
	redial(client.Loop(), server.Addr(1), weir.Backoff{First: time.Hour}, d)
	s.Until("the first wait", func() bool { return len(d.waits) == 1 })
	before := s.Now()
	if !d.r.Now() {
		t.Error("there was a wait")
	}
	s.Until("the second failure", func() bool { return len(d.errs) == 2 })
	if s.Now()-before > time.Minute {
		t.Errorf("it waited for %v", s.Now()-before)
	}
	d.r.Stop()
	if d.r.Now() {
		t.Error("there was nothing to hurry")
	}
}

// TestRedialTotal: the time for a run of failures is bounded, from the start of its
// first attempt, however long that took; the last wait is as long as the time left.
func TestRedialTotal(t *testing.T) {
	const total, slow = 10*time.Second + 500*time.Millisecond, 3 * time.Second
	for _, first := range []time.Duration{0, slow} {
		s := weirtest.NewSim(t, 1)
		l := s.Host("client").Loop()
		c := &caller{}
		attempts := 0
		dial := func(p weir.Protocol) func() {
			if attempts++; attempts > 1 {
				return stopper(l.Connect("tcp", s.Host("server").Addr(1), p))
			}
			timer := l.After(first, func() { l.TellConnectFailed(p, &weir.ConnectError{}) })
			return func() { timer.Stop() }
		}
		l.RedialFunc(dial, weir.Backoff{First: time.Second, Most: time.Second, Jitter: -1, Total: total}, func(r *weir.Redialer) weir.Protocol { c.r = r; return c })
		s.Until("it gave up", func() bool { return c.gaveUp })
		if now := s.Now(); now < total || now > total+time.Second/2 {
			t.Errorf("it gave up after %v, want %v", now, total)
		}
		last := c.waits[len(c.waits)-1]
		if want := int((total-first)/time.Second) + 1; len(c.waits) != want || last <= 0 || last > time.Second/2 {
			t.Errorf("%d waits in %v, the last of %v, want %d", len(c.waits), total, last, want)
		}
	}
}

func stopper(c *weir.Connector) func() { return func() { c.Stop() } }

// TestRedialApart: connects that fail in the same turn do not retry in the same turn:
// the Redialers of a loop draw different shares at the same moment, and a world repeats
// them (R45).
func TestRedialApart(t *testing.T) {
	run := func() (waits [3]time.Duration) {
		s := weirtest.NewSim(t, 1)
		l := s.Host("client").Loop()
		for i := range waits {
			c := &caller{}
			fail := func(p weir.Protocol) func() {
				call := l.Soon(func() { l.TellConnectFailed(p, &weir.ConnectError{}) })
				return func() { call.Cancel() }
			}
			l.RedialFunc(fail, weir.Backoff{First: time.Hour}, func(r *weir.Redialer) weir.Protocol { c.r = r; return c })
			s.Until("the first failure", func() bool { return len(c.waits) == 1 })
			waits[i] = c.waits[0]
			if c.errs[0].Attempt != 1 || s.Now() != 0 {
				t.Errorf("attempt %d failed after %v", c.errs[0].Attempt, s.Now())
			}
		}
		return waits
	}
	waits := run()
	if waits[0] == waits[1] || waits[1] == waits[2] || waits[0] == waits[2] {
		t.Errorf("waits %v", waits)
	}
	if again := run(); again != waits {
		t.Errorf("waits %v, and in the same world %v", waits, again)
	}
}

// TestRedialFuncStop: Stop ends an attempt that is made by other means, once, and
// never one that is over.
func TestRedialFuncStop(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	l := s.Host("client").Loop()
	for _, over := range []bool{false, true} {
		c := &caller{refuse: true}
		stops := 0
		var p weir.Protocol
		r := l.RedialFunc(func(q weir.Protocol) func() { p = q; return func() { stops++ } }, weir.Backoff{}, func(r *weir.Redialer) weir.Protocol { c.r = r; return c })
		if over {
			l.TellConnectFailed(p, &weir.ConnectError{})
		}
		r.Stop()
		if want := map[bool]int{false: 1, true: 0}[over]; stops != want {
			t.Errorf("over %v: stopped %d times, want %d", over, stops, want)
		}
	}
}
