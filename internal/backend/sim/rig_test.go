package sim_test

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/sim"
)

// loop is the smallest loop there can be: it hands results to their owners.
type loop struct {
	*sim.Backend
	done  [64]backend.Completion
	later []timer

	scratch []*backend.Completion
	depth   int
}

type timer struct {
	at time.Duration
	f  func()
}

// after calls f once d has passed.
func (l *loop) after(d time.Duration, f func()) { l.later = append(l.later, timer{l.Now() + d, f}) }

func newLoop(t testing.TB, h *sim.Host) *loop {
	t.Helper()
	b, err := h.Backend()
	if err != nil {
		t.Fatal(err)
	}
	l := &loop{Backend: b}
	b.Drive(l)
	return l
}

func (l *loop) Turn(wait time.Duration) error {
	for len(l.later) > 0 && l.later[0].at <= l.Now() {
		f := l.later[0].f
		l.later = l.later[1:]
		f()
	}
	n, err := l.Wait(wait, l.done[:])
	for i := range l.done[:n] {
		l.done[i].Op.Owner.OpDone(&l.done[i])
	}
	return err
}

func (l *loop) Next() (time.Duration, bool) {
	if len(l.later) == 0 {
		return 0, false
	}
	return max(0, l.later[0].at-l.Now()), true
}

// submit arms op, or hands its result out at once.
func (l *loop) submit(op *backend.Op) {
	// Results nest: what OpDone submits may finish at once too.
	if l.depth == len(l.scratch) {
		l.scratch = append(l.scratch, new(backend.Completion))
	}
	c := l.scratch[l.depth]
	l.depth++
	if l.Submit(op, c) {
		op.Owner.OpDone(c)
	}
	l.depth--
}

// call is an Op with what came of it.
type call struct {
	backend.Op
	n     int
	err   error
	data  []byte
	peer  backend.Addr
	times int
	over  bool
	at    time.Duration
	w     *sim.World
}

func (c *call) OpDone(r *backend.Completion) {
	c.n, c.err, c.times, c.over = r.N, r.Err, c.times+1, !r.More
	c.data = append(c.data, r.Buf...)
	if r.Peer != nil {
		c.peer = *r.Peer
	}
	c.at = c.w.Now()
}

func (l *loop) begin(w *sim.World, op backend.Op) *call {
	c := &call{Op: op, w: w}
	c.Owner = c
	l.submit(&c.Op)
	return c
}

// world is a calm world of two hosts, each with a loop.
type world struct {
	*sim.World
	t    testing.TB
	a, b *loop
}

func newWorld(t testing.TB, cfg sim.Config) *world {
	t.Helper()
	w := &world{World: sim.New(1, cfg), t: t}
	w.a, w.b = newLoop(t, w.Host("a")), newLoop(t, w.Host("b"))
	t.Cleanup(func() {
		for _, v := range w.Violations() {
			t.Error(v)
		}
	})
	return w
}

// finish runs until c has its last result.
func (w *world) finish(c *call) *call {
	w.t.Helper()
	if err := w.Run(func() bool { return c.over }); err != nil {
		w.t.Fatalf("at %v: %v", w.Now(), err)
	}
	return c
}

func (w *world) do(l *loop, op backend.Op) *call {
	w.t.Helper()
	return w.finish(l.begin(w.World, op))
}

func (w *world) rest() {
	w.t.Helper()
	if err := w.Run(nil); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) listen(l *loop, port uint16, backlog int) (backend.Handle, backend.Addr) {
	w.t.Helper()
	addr := backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(l.Host().Addrs()[0], port)}
	h, err := l.Open(&backend.Spec{Family: backend.Inet, Bind: true, Local: addr, Backlog: backlog})
	if err != nil {
		w.t.Fatal(err)
	}
	if addr, err = l.Name(h, false); err != nil {
		w.t.Fatal(err)
	}
	return h, addr
}

func (w *world) open(l *loop) backend.Handle {
	w.t.Helper()
	h, err := l.Open(&backend.Spec{Family: backend.Inet})
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

func (w *world) dial(l *loop, to backend.Addr) (backend.Handle, *call) {
	w.t.Helper()
	h := w.open(l)
	return h, l.begin(w.World, backend.Op{Kind: backend.Connect, Handle: h, Addr: &to})
}

// pair connects a to b.
func (w *world) pair() (a, b backend.Handle) {
	w.t.Helper()
	l, addr := w.listen(w.b, 0, 10)
	a, c := w.dial(w.a, addr)
	got := w.do(w.b, backend.Op{Kind: backend.Accept, Handle: l})
	if w.finish(c); c.err != nil || got.err != nil {
		w.t.Fatal(c.err, got.err)
	}
	w.shut(w.b, l, backend.CloseFlat)
	return a, backend.Handle(got.n)
}

func (w *world) shut(l *loop, h backend.Handle, how backend.How) {
	w.t.Helper()
	if err := l.Shut(h, how); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(l *loop, h backend.Handle, text string) {
	w.t.Helper()
	if c := w.do(l, backend.Op{Kind: backend.Write, Handle: h, Vec: [][]byte{[]byte(text)}}); c.n != len(text) || c.err != nil {
		w.t.Fatalf("write: %d, %v", c.n, c.err)
	}
}

func read(h backend.Handle) backend.Op { return backend.Op{Kind: backend.Read, Handle: h} }

// want checks how a call ended.
func (w *world) want(c *call, data string, err error) {
	w.t.Helper()
	if string(c.data) != data || !errors.Is(c.err, err) {
		w.t.Fatalf("at %v: %q, %v, want %q, %v", w.Now(), c.data, c.err, data, err)
	}
}

// clean checks that nothing is left when both loops are closed (G6).
func (w *world) clean() {
	w.t.Helper()
	for _, l := range []*loop{w.a, w.b} {
		if err := l.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.rest()
	if u := w.Usage(); u != (sim.Usage{}) {
		w.t.Fatalf("left over: %+v", u)
	}
}

const (
	refused = syscall.ECONNREFUSED
	reset   = syscall.ECONNRESET
	timeout = syscall.ETIMEDOUT
)
