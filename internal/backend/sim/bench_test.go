package sim_test

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/sim"
)

func netipPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// strength tells which fields of f are not zero.
func strength(f sim.Faults) []bool {
	v := reflect.ValueOf(f)
	out := make([]bool, v.NumField())
	for i := range out {
		out[i] = !v.Field(i).IsZero()
	}
	return out
}

// pinger echoes, or starts an exchange and goes on with it.
type pinger struct {
	l        *loop
	rop, wop backend.Op
	vec      [1][]byte
	buf      []byte
	count    *int
}

func newPinger(l *loop, h backend.Handle, count *int) *pinger {
	p := &pinger{l: l, count: count, buf: make([]byte, 64)}
	p.rop = backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h, Owner: p}
	p.wop = backend.Op{Kind: backend.Write, Handle: h, Owner: p}
	l.submit(&p.rop)
	return p
}

func (p *pinger) send(b []byte) {
	p.vec[0] = p.buf[:copy(p.buf, b)]
	p.wop.Vec = p.vec[:]
	p.l.submit(&p.wop)
}

func (p *pinger) OpDone(c *backend.Completion) {
	if c.Op == &p.rop && c.Err == nil {
		*p.count++
		p.send(c.Buf)
	}
}

// BenchmarkEvents is simulated events per second: 64-byte echoes over 100
// connections between two hosts.
func BenchmarkEvents(b *testing.B) {
	w := newWorld(b, sim.Config{})
	count := 0
	for range 100 {
		x, y := w.pair()
		newPinger(w.b, y, &count)
		newPinger(w.a, x, &count).send(make([]byte, 64))
	}
	for range 10_000 {
		w.Step()
	}
	b.ReportAllocs()
	b.ResetTimer()
	before, start := w.Stats(), w.Now()
	for range b.N {
		w.Step()
	}
	b.StopTimer()
	s := w.Stats()
	b.ReportMetric(float64(s.Total()-before.Total())/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric((w.Now()-start).Seconds()/b.Elapsed().Seconds(), "virtual/real")
}

// The steady state of a simulated world allocates nothing.
func TestNoAllocation(t *testing.T) {
	w := newWorld(t, sim.Config{})
	count := 0
	for range 10 {
		x, y := w.pair()
		newPinger(w.b, y, &count)
		newPinger(w.a, x, &count).send(make([]byte, 64))
	}
	steps := func() {
		for range 1000 {
			w.Step()
		}
	}
	steps()
	before := count
	if n := testing.AllocsPerRun(100, steps); n >= 1 || count-before < 1000 {
		t.Errorf("%v allocations in 1000 steps, %d exchanges", n, count-before)
	}
}
