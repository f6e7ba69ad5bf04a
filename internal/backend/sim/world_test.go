package sim_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/sim"
)

// end is one end of a connection that sends and receives at random.
type end struct {
	l             *loop
	h             backend.Handle
	r             *rand.Rand
	rop, wop      backend.Op
	send, sent    int
	got           int
	key           byte // of what is received
	own           byte // of what is sent
	eof, shut     bool
	err           error
	problem       string
	closed        bool
	supply, multi bool
	piece         int // how much it writes at once, at most
}

func newEnd(l *loop, h backend.Handle, seed uint64, send int, own, key byte) *end {
	e := &end{l: l, h: h, r: rand.New(rand.NewPCG(seed, uint64(own))), send: send, own: own, key: key}
	e.piece = min(30_000, 2*l.Host().World().Faults().SendBuffer)
	e.rop.Owner, e.wop.Owner = e, e
	e.multi, e.supply = e.r.IntN(2) == 0, e.r.IntN(3) == 0
	return e
}

func fill(p []byte, key byte, at int) {
	for i := range p {
		p[i] = byte((at+i)*31) ^ key
	}
}

func (e *end) start() {
	e.read()
	e.write()
}

func (e *end) read() {
	e.rop.Kind, e.rop.Handle, e.rop.Flags, e.rop.Buf = backend.Read, e.h, 0, nil
	switch {
	case e.supply:
		e.rop.Buf = make([]byte, 1+e.r.IntN(10_000))
	case e.multi:
		e.rop.Flags = backend.Multi
	}
	e.l.submit(&e.rop)
}

func (e *end) write() {
	if e.sent == e.send {
		if !e.shut {
			e.shut = true
			if err := e.l.Shut(e.h, backend.ShutWrite); err != nil && e.err == nil {
				e.err = err
			}
		}
		return
	}
	n := min(1+e.r.IntN(e.piece), e.send-e.sent)
	p := make([]byte, n)
	fill(p, e.own, e.sent)
	k := e.r.IntN(n + 1)
	e.wop.Kind, e.wop.Handle, e.wop.Vec = backend.Write, e.h, [][]byte{p[:k], nil, p[k:]}
	e.l.submit(&e.wop)
}

func (e *end) OpDone(c *backend.Completion) {
	switch {
	case errors.Is(c.Err, backend.ErrAgain) && c.Op == &e.rop:
	case errors.Is(c.Err, backend.ErrCanceled):
	case c.Err != nil:
		if e.err == nil {
			e.err = c.Err
		}
	case c.Op == &e.wop:
		e.sent += c.N
	case c.N == 0:
		e.eof = true
	default:
		want := make([]byte, c.N)
		fill(want, e.key, e.got)
		if !bytes.Equal(want, c.Buf) {
			e.problem = fmt.Sprintf("bytes %d to %d differ", e.got, e.got+c.N)
		}
		e.got += c.N
	}
	if e.err != nil {
		e.finish()
		return
	}
	if c.Op == &e.wop {
		e.write()
	} else if !c.More && !e.eof {
		e.read()
	}
	if e.eof && e.shut {
		e.finish()
	}
}

// finish closes the handle once no Op needs it.
func (e *end) finish() {
	for _, op := range []*backend.Op{&e.rop, &e.wop} {
		if op.Armed() && !e.l.Cancel(op) {
			return // its last result comes here again
		}
	}
	if !e.closed {
		e.closed = true
		if err := e.l.Shut(e.h, backend.CloseFlat); err != nil {
			e.problem = err.Error()
		}
	}
}

// transfers runs connections between three hosts and one that stays at home,
// to the end, and returns what they came to.
func transfers(t testing.TB, seed uint64, cfg sim.Config, conns int) (*sim.World, []*end) {
	w := sim.New(seed, cfg)
	r := rand.New(rand.NewPCG(seed, 99))
	var loops []*loop
	for _, name := range []string{"a", "b", "c", "a"} {
		loops = append(loops, newLoop(t, w.Host(name)))
	}
	// Small buffers mean many steps for each byte.
	f := w.Faults()
	most := min(60_000, 200*min(f.SendBuffer, f.ReceiveBuffer))
	// A host with nothing on it, which may come and go.
	w.Host("d").OnCrash = func(*sim.Host) {}
	var ends []*end
	server := loops[0]
	h, err := open(server, &backend.Spec{Family: backend.Inet, IPv6: true, Dual: true, Backlog: 4})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := server.Name(h, false)
	if err != nil {
		t.Fatal(err)
	}
	accept := backend.Op{Kind: backend.Accept, Flags: backend.Multi, Handle: h}
	accept.Owner = owner(func(c *backend.Completion) {
		if c.Err == nil {
			e := newEnd(server, backend.Handle(c.N), seed^uint64(c.N), r.IntN(most), 2, 1)
			ends = append(ends, e)
			e.start()
		}
		switch {
		case c.Err != nil && c.Err != backend.ErrAgain:
			server.after(100*time.Millisecond, func() { server.submit(&accept) })
		case !c.More:
			server.submit(&accept)
		}
	})
	server.submit(&accept)
	for i := range conns {
		l := loops[1+r.IntN(3)]
		h, err := open(l, &backend.Spec{Family: backend.Inet})
		if err != nil {
			t.Fatal(err)
		}
		to := backend.Addr{Family: backend.Inet, IP: netipPort(w.Lookup("a")[0], addr.IP.Port())}
		connect := &backend.Op{Kind: backend.Connect, Handle: h, Addr: &to}
		connect.Owner = owner(func(c *backend.Completion) {
			if c.Err != nil {
				if err := l.Shut(h, backend.CloseFlat); err != nil {
					t.Error(err)
				}
				return
			}
			e := newEnd(l, h, seed^uint64(i), r.IntN(most), 1, 2)
			ends = append(ends, e)
			e.start()
		})
		l.submit(connect)
	}
	if err := w.RunFor(time.Duration(r.IntN(int(time.Minute)))); err != nil {
		t.Fatal(err)
	}
	w.HealAll()
	if err := w.Run(nil); err != nil {
		t.Fatal(err)
	}
	for _, l := range loops {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Run(nil); err != nil {
		t.Fatal(err)
	}
	return w, ends
}

// open tries again where the faults are against it.
func open(l *loop, spec *backend.Spec) (h backend.Handle, err error) {
	for range 100 {
		if h, err = l.Open(spec); err == nil {
			break
		}
	}
	return h, err
}

// Under all faults bytes arrive in order (G2), whole if nobody got an error, and
// at rest nothing is left (G6, G10).
func TestTransfers(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 50
	}
	failed, whole := 0, 0
	for seed := uint64(1); seed <= seeds; seed++ {
		w, ends := transfers(t, seed, sim.Config{Swarm: true}, 6)
		sent, got := 0, 0
		clean := true
		for _, e := range ends {
			if e.problem != "" {
				t.Errorf("seed %d: %s", seed, e.problem)
			}
			sent, got = sent+e.sent, got+e.got
			clean = clean && e.err == nil && e.eof
			if e.err != nil {
				failed++
			} else if e.eof {
				whole++
			}
		}
		if clean && sent != got {
			t.Errorf("seed %d: sent %d bytes, got %d, and no error", seed, sent, got)
		}
		if u := w.Usage(); u != (sim.Usage{}) {
			t.Errorf("seed %d: left over %+v", seed, u)
		}
		for _, v := range w.Violations() {
			t.Errorf("seed %d: %s", seed, v)
		}
		if t.Failed() {
			t.Fatalf("faults: %+v", sim.Draw(seed))
		}
	}
	if failed == 0 || whole == 0 {
		t.Errorf("%d ends failed and %d did not: the faults are too weak or too strong", failed, whole)
	}
	t.Logf("%d ends were whole, %d failed", whole, failed)
}

// The same seed gives the same trace, byte for byte, whatever GOMAXPROCS is
// (behaviour 94); with or without somebody watching.
func TestSameSeedSameTrace(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	hashes := map[uint64]uint64{}
	for seed := uint64(1); seed <= 30; seed++ {
		var first bytes.Buffer
		runtime.GOMAXPROCS(1)
		a, _ := transfers(t, seed, sim.Config{Swarm: true, Trace: &first}, 4)
		var second bytes.Buffer
		runtime.GOMAXPROCS(2)
		b, _ := transfers(t, seed, sim.Config{Swarm: true, Trace: &second}, 4)
		c, _ := transfers(t, seed, sim.Config{Swarm: true}, 4)
		if !bytes.Equal(first.Bytes(), second.Bytes()) || first.Len() == 0 {
			t.Fatalf("seed %d: traces of %d and %d bytes differ", seed, first.Len(), second.Len())
		}
		if a.TraceHash() != b.TraceHash() || a.TraceHash() != c.TraceHash() {
			t.Fatalf("seed %d: hashes %x, %x, %x", seed, a.TraceHash(), b.TraceHash(), c.TraceHash())
		}
		if other, taken := hashes[a.TraceHash()]; taken {
			t.Errorf("seeds %d and %d have one hash", seed, other)
		}
		hashes[a.TraceHash()] = seed
	}
}

// Every fate of a connection and all weather come to pass for some seed, and
// every kind of event of TCP.
func TestFaultsHappen(t *testing.T) {
	seen := map[string]int{}
	for seed := uint64(1); seed <= 250; seed++ {
		var lines bytes.Buffer
		transfers(t, seed, sim.Config{Swarm: true, Trace: &lines}, 6)
		for line := range strings.Lines(lines.String()) {
			f := strings.Fields(line)
			seen[f[3]]++
			if f[3] == "doomed" || f[3] == "weather" {
				seen[f[3]+" "+f[4]]++
			}
		}
	}
	for _, want := range []string{
		"arrival", "ack", "reset", "syn", "syn-retry", "syn-ack", "establish", "refuse", "retry", "late",
		"window", "mended", "restarted", "dropped",
		"doomed 2", "doomed 3", "doomed 4", "doomed 5", "doomed 6", "doomed 7", "doomed 8",
		"weather 1", "weather 2", "weather 3", "weather 4", "weather 5", "weather 6",
	} {
		if seen[want] == 0 {
			t.Errorf("no %q in any trace", want)
		}
	}
}

// A loop that submits again at once what fails at once is found out (bug 1, G9).
func TestSpin(t *testing.T) {
	w := newWorld(t, sim.Config{})
	l, addr := w.listen(w.b, 9, 5)
	w.Host("b").SetHandles(1)
	_, c := w.dial(w.a, addr)
	w.finish(c)
	accept := backend.Op{Kind: backend.Accept, Handle: l}
	accept.Owner = owner(func(*backend.Completion) { w.b.after(0, func() { w.b.submit(&accept) }) })
	w.b.submit(&accept)
	if err := w.RunFor(time.Second); !errors.Is(err, sim.ErrSpin) {
		t.Errorf("a busy loop: %v", err)
	}
}

// What is written is in the hash, not only how much.
func TestTraceSeesBytes(t *testing.T) {
	run := func(text string) uint64 {
		w := newWorld(t, sim.Config{})
		a, _ := w.pair()
		w.write(w.a, a, text)
		return w.TraceHash()
	}
	first, again, other := run("some bytes here"), run("some bytes here"), run("some bytes hers")
	if first != again || first == other {
		t.Errorf("the hash does not follow the bytes: %x %x %x", first, again, other)
	}
}

// Turning one fault on leaves the draws of the others alone.
func TestDrawsAreApart(t *testing.T) {
	connected := func(f sim.Faults) time.Duration {
		w := newWorld(t, sim.Config{Faults: f})
		_, addr := w.listen(w.b, 9, 1)
		_, c := w.dial(w.a, addr)
		return w.finish(c).at
	}
	f := sim.Faults{Jitter: time.Second}
	g := f
	g.Shuffle, g.CutRead, g.Defer, g.EmptyWait, g.LateCancel = true, 0.5, 0.5, 0.5, 0.5
	if x, y := connected(f), connected(g); x != y {
		t.Errorf("connected after %v, and after %v with other faults", x, y)
	}
}

func TestDraw(t *testing.T) {
	if sim.Draw(7) != sim.Draw(7) || sim.Draw(7) == sim.Draw(8) {
		t.Error("Draw is not the seed's")
	}
	// Each fault is on for some seed and off for another.
	var on, off [64]bool
	for seed := range uint64(300) {
		for i, v := range strength(sim.Draw(seed)) {
			on[i] = on[i] || v
			off[i] = off[i] || !v
		}
	}
	for i := range strength(sim.Faults{}) {
		if !on[i] || !off[i] {
			t.Errorf("fault %d is on for some seed: %t, off: %t", i, on[i], off[i])
		}
	}
}
