package layer_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/weirtest"
)

func dice(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func fault(c layer.FaultConfig) layer.Layer { return layer.Fault(dice(1), c) }

// TestFaultStreams: behaviours 20 to 47 over a line that delays, cuts and is
// slow: nothing is lost or reordered.
func TestFaultStreams(t *testing.T) {
	slow := layer.Faults{Latency: time.Millisecond, Jitter: time.Millisecond, Bandwidth: 500 << 20, Window: 200_000}
	cut := layer.Faults{Slice: 40_000}
	l := fault(layer.FaultConfig{In: slow, Out: slow})
	// For layers that wait, a clock that does not wait is best.
	where := weirtest.Simulated
	if *layertest.Everywhere {
		where = weirtest.Everywhere
	}
	t.Run("slow", func(t *testing.T) { t.Parallel(); layertest.SuiteIn(t, where, one(l), one(l)) })
	t.Run("three", func(t *testing.T) { t.Parallel(); layertest.SuiteIn(t, where, three(l), three(l)) })
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		layertest.Suite(t, one(fault(layer.FaultConfig{In: cut, Out: cut})), nil)
	})
}

// meeting is a client that sends what it has and a server that keeps what it
// gets, in the simulator.
type meeting struct {
	*weirtest.Sim
	server, client *layertest.Keeper
}

func meet(t *testing.T, server, client []layer.Layer, send []byte) *meeting {
	t.Helper()
	s := weirtest.NewSim(t, 1)
	m := &meeting{Sim: s, server: &layertest.Keeper{Sim: s}, client: &layertest.Keeper{Sim: s, Send: send}}
	if _, err := s.Host("server").Loop().Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol { return m.server }, server...)); err != nil {
		t.Fatal(err)
	}
	s.Host("client").Loop().Connect("tcp", "server:7", layer.Client(m.client, client...))
	return m
}

// pass lets simulated time pass.
func (m *meeting) pass(d time.Duration) {
	done := false
	m.Host("client").Loop().After(d, func() { done = true })
	m.Until("time to pass", func() bool { return done })
}

// TestFaultLatency: bytes arrive late by the latency and at most the jitter,
// and the end of the stream comes after them.
func TestFaultLatency(t *testing.T) {
	f := layer.Faults{Latency: 200 * time.Millisecond, Jitter: 50 * time.Millisecond}
	for _, c := range []struct {
		what           string
		server, client []layer.Layer
	}{
		{"in", one(fault(layer.FaultConfig{In: f})), nil},
		{"out", nil, one(fault(layer.FaultConfig{Out: f}))},
	} {
		m := meet(t, c.server, c.client, []byte("hello"))
		m.Until("the bytes", func() bool { return len(m.server.Got) == 5 })
		if m.server.At < 200*time.Millisecond || m.server.At > 260*time.Millisecond {
			t.Errorf("%s: the bytes came after %v", c.what, m.server.At)
		}
		from := m.Now()
		_ = m.client.T.WriteEOF()
		m.Until("the end", func() bool { return m.server.Lost && m.client.Lost })
		if m.server.EOF < from || m.server.Err != nil || m.client.Err != nil {
			t.Errorf("%s: the end came at %v, lost with %v and %v", c.what, m.server.EOF, m.server.Err, m.client.Err)
		}
	}
}

// TestFaultBandwidth: how long a megabyte takes, given a bandwidth or a window.
func TestFaultBandwidth(t *testing.T) {
	f := layer.Faults{Bandwidth: 100_000}
	near(t, "bandwidth out", flowing(t, 1, 1_000_000, nil, one(fault(layer.FaultConfig{Out: f})))[0], 10*time.Second)
	near(t, "bandwidth in", flowing(t, 1, 1_000_000, one(fault(layer.FaultConfig{In: f})), nil)[0], 10*time.Second)
	f = layer.Faults{Latency: 100 * time.Millisecond, Window: 100_000}
	near(t, "window", flowing(t, 1, 1_000_000, nil, one(fault(layer.FaultConfig{Out: f})))[0], time.Second)
}

// TestFaultSlice: no piece is longer than allowed.
func TestFaultSlice(t *testing.T) {
	f := layer.Faults{Slice: 7, SliceDelay: time.Millisecond}
	want := bytes.Repeat([]byte("sliced"), 100)
	for _, c := range []struct{ server, client []layer.Layer }{
		{one(fault(layer.FaultConfig{In: f})), nil},
		{nil, one(fault(layer.FaultConfig{Out: f}))},
	} {
		m := meet(t, c.server, c.client, want)
		m.Until("the bytes", func() bool { return len(m.server.Got) == len(want) })
		if !bytes.Equal(m.server.Got, want) {
			t.Error("other bytes came")
		}
		for _, n := range m.server.Pieces {
			if n > 7 {
				t.Errorf("a piece of %d bytes", n)
			}
		}
		if m.server.At < 80*time.Millisecond {
			t.Errorf("86 pieces took %v, a millisecond each", m.server.At)
		}
	}
}

// TestFaultReset: after the given number of bytes both sides see a reset; with
// a chance, as often as asked for, and on the same connections for the same
// seed.
func TestFaultReset(t *testing.T) {
	f := layer.Faults{ResetAfter: 1000}
	m := meet(t, nil, one(fault(layer.FaultConfig{Out: f})), make([]byte, 5000))
	m.Until("both lost", func() bool { return m.client.Lost && (m.server.Lost || m.server.T == nil) })
	if !errors.Is(m.client.Err, layer.ErrFault) || !errors.Is(m.client.Err, syscall.ECONNRESET) {
		t.Errorf("the client: %v", m.client.Err)
	}
	if m.server.T != nil && !errors.Is(m.server.Err, syscall.ECONNRESET) || len(m.server.Got) > 1000 {
		t.Errorf("the server: %v after %d bytes", m.server.Err, len(m.server.Got))
	}

	draw := func(seed uint64) (lost []bool) {
		l := layer.Fault(dice(seed), layer.FaultConfig{In: layer.Faults{ResetChance: 0.2}})
		s := weirtest.NewSim(t, 1)
		var all []*layertest.Keeper
		if _, err := s.Host("server").Loop().Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol {
			k := &layertest.Keeper{Sim: s}
			all = append(all, k)
			return k
		}, l)); err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			s.Host("client").Loop().Connect("tcp", "server:7", &layertest.Keeper{Sim: s, Send: []byte("x")})
			s.Until("it to come to something", func() bool {
				return len(all) == i+1 && (all[i].Lost || len(all[i].Got) > 0)
			})
		}
		s.Until("what was reset to be lost", func() bool { return true })
		for _, k := range all {
			lost = append(lost, k.Err != nil)
		}
		return lost
	}
	one, again, other := draw(1), draw(1), draw(2)
	n, differ := 0, false
	for i := range one {
		if one[i] {
			n++
		}
		if one[i] != again[i] {
			t.Fatalf("connection %d differs although the seed is the same", i)
		}
		differ = differ || one[i] != other[i]
	}
	if n < 20 || n > 60 || !differ {
		t.Errorf("%d of 200 were reset with a chance of a fifth; another seed differs: %v", n, differ)
	}
}

// TestFaultBlackHole: nothing arrives any more, not even an end, and neither
// side is told.
func TestFaultBlackHole(t *testing.T) {
	f := layer.Faults{BlackHole: true, BlackHoleAfter: 100}
	for _, c := range []struct{ server, client []layer.Layer }{
		{one(fault(layer.FaultConfig{In: f})), nil},
		{nil, one(fault(layer.FaultConfig{Out: f}))},
	} {
		m := meet(t, c.server, c.client, make([]byte, 300_000))
		m.Until("what passes", func() bool { return len(m.server.Got) == 100 })
		_ = m.client.T.WriteEOF()
		m.pass(time.Hour)
		if len(m.server.Got) != 100 || m.server.EOF != 0 || m.server.Lost || m.client.Lost || m.client.T.Buffered() != 0 {
			t.Errorf("%d bytes came, end at %v, lost: %v and %v, %d bytes wait", len(m.server.Got), m.server.EOF, m.server.Lost, m.client.Lost, m.client.T.Buffered())
		}
	}
}
