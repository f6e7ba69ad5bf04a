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
	"github.com/weir-io/weir/weirtest"
)

func dice(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func fault(c layer.FaultConfig) layer.Layer { return layer.Fault(dice(1), c) }

// TestFaultStreams: behaviours 20 to 47 through a line that delays, cuts and is
// slow: nothing is lost, and no order changes.
func TestFaultStreams(t *testing.T) {
	slow := layer.Faults{Latency: time.Millisecond, Jitter: time.Millisecond, Bandwidth: 500 << 20, Window: 200_000}
	cut := layer.Faults{Slice: 40_000}
	l := fault(layer.FaultConfig{In: slow, Out: slow})
	// Where waiting is what a layer does, a clock that does not wait serves best.
	where := weirtest.Simulated
	if *everywhere {
		where = weirtest.Everywhere
	}
	t.Run("slow", func(t *testing.T) { t.Parallel(); suiteIn(t, where, one(l), one(l)) })
	t.Run("three", func(t *testing.T) { t.Parallel(); suiteIn(t, where, three(l), three(l)) })
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		suite(t, one(fault(layer.FaultConfig{In: cut, Out: cut})), nil)
	})
}

// meeting is a client that sends what it has and a server that keeps what it
// gets, in the simulator.
type meeting struct {
	*weirtest.Sim
	server, client *keeper
}

type keeper struct {
	sim    *weirtest.Sim
	t      weir.Transport
	send   []byte
	got    []byte
	pieces []int
	at     time.Duration // when the last byte came
	eof    time.Duration
	lost   bool
	err    error
	onData func(*keeper)
	onEOF  func(*keeper) bool
}

func (k *keeper) ConnectionMade(t weir.Transport) {
	k.t = t
	if len(k.send) > 0 {
		_, _ = t.Write(k.send)
	}
}

func (k *keeper) DataReceived(p []byte) (int, error) {
	k.got = append(k.got, p...)
	k.pieces = append(k.pieces, len(p))
	k.at = k.sim.Now()
	if k.onData != nil {
		k.onData(k)
	}
	return len(p), nil
}

func (k *keeper) EOFReceived(int) (bool, error) {
	k.eof = k.sim.Now()
	return k.onEOF != nil && k.onEOF(k), nil
}

func (k *keeper) ConnectionLost(err error) { k.lost, k.err = true, err }

func meet(t *testing.T, server, client []layer.Layer, send []byte) *meeting {
	t.Helper()
	s := weirtest.NewSim(t, 1)
	m := &meeting{Sim: s, server: &keeper{sim: s}, client: &keeper{sim: s, send: send}}
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

// TestFaultLatency: what comes is late by the latency and at most the jitter,
// and the end of the stream comes behind it.
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
		m.Until("the bytes", func() bool { return len(m.server.got) == 5 })
		if m.server.at < 200*time.Millisecond || m.server.at > 260*time.Millisecond {
			t.Errorf("%s: the bytes came after %v", c.what, m.server.at)
		}
		from := m.Now()
		_ = m.client.t.WriteEOF()
		m.Until("the end", func() bool { return m.server.lost && m.client.lost })
		if m.server.eof < from || m.server.err != nil || m.client.err != nil {
			t.Errorf("%s: the end came at %v, lost with %v and %v", c.what, m.server.eof, m.server.err, m.client.err)
		}
	}
}

// TestFaultBandwidth and the window: how long a megabyte takes.
func TestFaultBandwidth(t *testing.T) {
	f := layer.Faults{Bandwidth: 100_000}
	near(t, "bandwidth out", flowing(t, 1, 1_000_000, nil, one(fault(layer.FaultConfig{Out: f})))[0], 10*time.Second)
	near(t, "bandwidth in", flowing(t, 1, 1_000_000, one(fault(layer.FaultConfig{In: f})), nil)[0], 10*time.Second)
	f = layer.Faults{Latency: 100 * time.Millisecond, Window: 100_000}
	near(t, "window", flowing(t, 1, 1_000_000, nil, one(fault(layer.FaultConfig{Out: f})))[0], time.Second)
}

// TestFaultSlice: no piece is longer than it may be.
func TestFaultSlice(t *testing.T) {
	f := layer.Faults{Slice: 7, SliceDelay: time.Millisecond}
	want := bytes.Repeat([]byte("sliced"), 100)
	for _, c := range []struct{ server, client []layer.Layer }{
		{one(fault(layer.FaultConfig{In: f})), nil},
		{nil, one(fault(layer.FaultConfig{Out: f}))},
	} {
		m := meet(t, c.server, c.client, want)
		m.Until("the bytes", func() bool { return len(m.server.got) == len(want) })
		if !bytes.Equal(m.server.got, want) {
			t.Error("other bytes came")
		}
		for _, n := range m.server.pieces {
			if n > 7 {
				t.Errorf("a piece of %d bytes", n)
			}
		}
		if m.server.at < 80*time.Millisecond {
			t.Errorf("86 pieces took %v, a millisecond each", m.server.at)
		}
	}
}

// TestFaultReset: after as many bytes as asked for, both sides see a reset; by
// chance, as often as asked for, and the same connections for the same seed.
func TestFaultReset(t *testing.T) {
	f := layer.Faults{ResetAfter: 1000}
	m := meet(t, nil, one(fault(layer.FaultConfig{Out: f})), make([]byte, 5000))
	m.Until("both lost", func() bool { return m.client.lost && (m.server.lost || m.server.t == nil) })
	if !errors.Is(m.client.err, layer.ErrFault) || !errors.Is(m.client.err, syscall.ECONNRESET) {
		t.Errorf("the client: %v", m.client.err)
	}
	if m.server.t != nil && !errors.Is(m.server.err, syscall.ECONNRESET) || len(m.server.got) > 1000 {
		t.Errorf("the server: %v after %d bytes", m.server.err, len(m.server.got))
	}

	draw := func(seed uint64) (lost []bool) {
		l := layer.Fault(dice(seed), layer.FaultConfig{In: layer.Faults{ResetChance: 0.2}})
		s := weirtest.NewSim(t, 1)
		var all []*keeper
		if _, err := s.Host("server").Loop().Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol {
			k := &keeper{sim: s}
			all = append(all, k)
			return k
		}, l)); err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			s.Host("client").Loop().Connect("tcp", "server:7", &keeper{sim: s, send: []byte("x")})
			s.Until("it to come to something", func() bool {
				return len(all) == i+1 && (all[i].lost || len(all[i].got) > 0)
			})
		}
		s.Until("what was reset to be lost", func() bool { return true })
		for _, k := range all {
			lost = append(lost, k.err != nil)
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

// TestFaultBlackHole: nothing comes any more, no end either, and nobody is told.
func TestFaultBlackHole(t *testing.T) {
	f := layer.Faults{BlackHole: true, BlackHoleAfter: 100}
	for _, c := range []struct{ server, client []layer.Layer }{
		{one(fault(layer.FaultConfig{In: f})), nil},
		{nil, one(fault(layer.FaultConfig{Out: f}))},
	} {
		m := meet(t, c.server, c.client, make([]byte, 300_000))
		m.Until("what passes", func() bool { return len(m.server.got) == 100 })
		_ = m.client.t.WriteEOF()
		m.pass(time.Hour)
		if len(m.server.got) != 100 || m.server.eof != 0 || m.server.lost || m.client.lost || m.client.t.Buffered() != 0 {
			t.Errorf("%d bytes came, end at %v, lost: %v and %v, %d bytes wait", len(m.server.got), m.server.eof, m.server.lost, m.client.lost, m.client.t.Buffered())
		}
	}
}
