package packet_test

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/weirtest"
)

// faultTrace sends 60 datagrams from a client through faults, each once the one before
// has come, and returns what the protocol saw of them. others is how many of
// another client's come in between.
func faultTrace(t *testing.T, l *weir.Loop, seed uint64, others int) []string {
	t.Helper()
	seen := 0
	count := packet.Observe(func(e layer.Traffic) {
		if e.What == layer.Received {
			seen++
		}
	})
	f := packet.Faults{Loss: .2, Duplicate: .15, Reorder: .2, ReorderWait: time.Hour, Corrupt: .1}
	p, a, b := &ear{}, &ear{}, &ear{}
	e := listen(t, l, local, p, []packet.Layer{count, packet.Fault(packet.FaultConfig{In: f, Seed: seed})})
	ea, eb := listen(t, l, local, a, nil), listen(t, l, local, b, nil)
	sent := 0
	put := func(from *weir.PacketEndpoint, s string) {
		send(t, from, s, e.Local())
		sent++
		weirtest.Until(t, l, "the datagram", func() bool { return seen == sent })
	}
	for i := range 60 {
		put(ea, fmt.Sprintf("a%02d", i))
		for range others {
			put(eb, "other")
		}
	}
	var trace []string
	for i, s := range p.got {
		if p.from[i] == ea.Local() {
			trace = append(trace, s)
		}
	}
	e.Abort()
	ea.Abort()
	eb.Abort()
	return trace
}

// TestFaultsRepeat: the same seed gives a flow the same trace on every backend, and
// whatever other flows do; another seed gives another one.
func TestFaultsRepeat(t *testing.T) {
	var want []string
	everywhere(t, func(t *testing.T, l *weir.Loop) {
		got := faultTrace(t, l, 7, 0)
		if want == nil {
			want = got
			if len(want) == 60 || slices.IsSorted(want) {
				t.Errorf("nothing went wrong: %q", want)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%q, and elsewhere\n%q", got, want)
		}
		if got := faultTrace(t, l, 7, 2); !slices.Equal(got, want) {
			t.Errorf("with others\n%q, and alone\n%q", got, want)
		}
		if got := faultTrace(t, l, 8, 0); slices.Equal(got, want) {
			t.Error("another seed changed nothing")
		}
	})
}

// world is two hosts of the simulator, one with an endpoint behind layers.
type world struct {
	*weirtest.Sim
	server, client *ear
	es, ec         *weir.PacketEndpoint
}

func newWorld(t *testing.T, layers ...packet.Layer) *world {
	t.Helper()
	s := weirtest.NewSim(t, 3)
	w := &world{Sim: s, server: &ear{}, client: &ear{}}
	hs, hc := s.Host("server"), s.Host("client")
	w.es = listen(t, hs.Loop(), hs.Addr(53), w.server, layers)
	w.ec = listen(t, hc.Loop(), hc.Addr(1000), w.client, nil)
	s.Until("the endpoints", func() bool { return w.server.e != nil && w.client.e != nil })
	return w
}

// pass sends datagrams to the server and returns what came of them within a second.
func (w *world) pass(t *testing.T, sent ...string) []string {
	t.Helper()
	had := len(w.server.got)
	for _, s := range sent {
		send(t, w.ec, s, w.es.Local())
		w.run(t, 5*time.Millisecond)
	}
	w.run(t, time.Second)
	return w.server.got[had:]
}

func (w *world) run(t *testing.T, d time.Duration) {
	t.Helper()
	if err := w.RunFor(d); err != nil {
		t.Fatal(err)
	}
}

func numbers(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// TestFaults: each fault is what it says, and is counted.
func TestFaults(t *testing.T) {
	fault := func(f packet.Faults) (packet.Layer, *packet.Counts) {
		c := &packet.Counts{}
		return packet.Fault(packet.FaultConfig{In: f, Seed: 1, Counts: c}), c
	}
	t.Run("loss", func(t *testing.T) {
		l, c := fault(packet.Faults{Loss: .25})
		got := newWorld(t, l).pass(t, numbers(400)...)
		if n := len(got); n < 260 || n > 340 || c.Lost.Load() != int64(400-n) || !strings.Contains(c.String(), "of 400 datagrams") {
			t.Errorf("%d came, %v", n, c)
		}
	})
	t.Run("duplicate", func(t *testing.T) {
		l, c := fault(packet.Faults{Duplicate: 1})
		if got := newWorld(t, l).pass(t, "a", "b"); strings.Join(got, "") != "aabb" || c.Duplicated.Load() != 2 {
			t.Errorf("%q, %v", got, c)
		}
	})
	t.Run("reorder", func(t *testing.T) {
		l, c := fault(packet.Faults{Reorder: 1})
		if got := newWorld(t, l).pass(t, "a", "b", "c", "d", "e"); strings.Join(got, "") != "badce" || c.Reordered.Load() != 3 {
			t.Errorf("%q, %v", got, c)
		}
	})
	t.Run("corrupt", func(t *testing.T) {
		l, c := fault(packet.Faults{Corrupt: 1})
		for i, got := range newWorld(t, l).pass(t, "hello", "hello", "") {
			n := 0
			for j := range len(got) {
				n += bits.OnesCount8(got[j] ^ "hello"[j])
			}
			if n != 1 && i < 2 {
				t.Errorf("%q: %d bits changed", got, n)
			}
		}
		if c.Corrupted.Load() != 2 {
			t.Error(c)
		}
	})
	t.Run("blackhole", func(t *testing.T) {
		l, c := fault(packet.Faults{BlackHole: true, BlackHoleAfter: 3})
		if got := newWorld(t, l).pass(t, "ab", "cd", "ef"); strings.Join(got, "") != "abcd" || c.Swallowed.Load() != 1 {
			t.Errorf("%q, %v", got, c)
		}
	})
	t.Run("window", func(t *testing.T) {
		l, c := fault(packet.Faults{Latency: 500 * time.Millisecond, Window: 5})
		if got := newWorld(t, l).pass(t, "ab", "cd", "ef", "g"); strings.Join(got, "") != "abcdg" || c.Full.Load() != 1 {
			t.Errorf("%q, %v", got, c)
		}
	})
}

// TestFaultTimes: latency, jitter and bandwidth by the clock of a world.
func TestFaultTimes(t *testing.T) {
	times := func(t *testing.T, f packet.Faults, n, size int) (at []time.Duration) {
		w := newWorld(t, packet.Fault(packet.FaultConfig{Out: f, Seed: 5}))
		start := w.Now()
		w.client.on = func([]byte, weir.PacketAddr) { at = append(at, (w.Now() - start).Round(time.Millisecond)) }
		for range n {
			send(t, w.es, strings.Repeat("x", size), w.ec.Local())
		}
		w.Until("all", func() bool { return len(at) == n })
		return at
	}
	base := times(t, packet.Faults{}, 1, 100)[0]
	if got := times(t, packet.Faults{Latency: 200 * time.Millisecond}, 3, 100); got[0] < base+199*time.Millisecond || got[2] > base+202*time.Millisecond {
		t.Error("latency:", got)
	}
	if got := times(t, packet.Faults{Bandwidth: 1000}, 3, 100); got[0] < 99*time.Millisecond || got[1]-got[0] != 100*time.Millisecond || got[2]-got[1] != 100*time.Millisecond {
		t.Error("bandwidth:", got)
	}
	got := times(t, packet.Faults{Jitter: 200 * time.Millisecond}, 50, 100)
	if got[0] > 60*time.Millisecond || got[49] < 140*time.Millisecond || got[49] > base+202*time.Millisecond {
		t.Error("jitter:", got)
	}
}
