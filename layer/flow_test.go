package layer_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/sink"
	"github.com/weir-io/weir/weirtest"
)

// TestWatchStreams: behaviours 20 to 47 through the layers that only watch.
func TestWatchStreams(t *testing.T) {
	var seen atomic.Int64
	idle := func() layer.Layer {
		return layer.Idle(layer.IdleConfig{Idle: time.Hour, WriteStall: time.Hour, MinRate: 1, Window: time.Hour})
	}
	t.Run("three", func(t *testing.T) {
		where := weirtest.OneBackend
		if *layertest.Everywhere {
			where = weirtest.Everywhere
		}
		// Limits are counted per loop: each of the loops that run in parallel
		// has its own.
		weirtest.TestLayers(t, where, func(f weir.Factory) weir.Factory {
			limit := layer.Limit(layer.LimitConfig{Total: 100, PerAddress: 100})
			log := layer.Observe(func(layer.Traffic) { seen.Add(1) })
			return layer.Server(f, limit, log, idle())
		}, func(p weir.Protocol) weir.Protocol { return layer.Client(p, idle()) })
	})
	if seen.Load() == 0 {
		t.Error("nothing was seen")
	}
}

// TestIdle: a connection without traffic is lost when its time is up and not
// before, and every byte in either direction restarts that time (behaviour 85).
func TestIdle(t *testing.T) {
	m := meet(t, one(layer.Idle(layer.IdleConfig{Idle: 10 * time.Second})), nil, nil)
	m.Until("the connection", func() bool { return m.server.T != nil && m.client.T != nil })
	for i := range 20 {
		m.pass(9 * time.Second)
		if i%2 == 0 {
			_, _ = m.client.T.Write([]byte("x"))
		} else {
			_, _ = m.server.T.Write([]byte("y"))
		}
	}
	last := m.Now()
	m.Until("the end", func() bool { return m.server.Lost })
	var e *layer.IdleError
	if !errors.As(m.server.Err, &e) || !errors.Is(m.server.Err, layer.ErrTimeout) || e.What != "idle" {
		t.Errorf("lost with %v", m.server.Err)
	}
	if d := m.Now() - last; d < 10*time.Second || d > 10*time.Second+100*time.Millisecond {
		t.Errorf("lost %v after the last byte", d)
	}
}

// TestIdleSlow: a backlog that leaves slowly counts as traffic, so no reply is
// cut off.
func TestIdleSlow(t *testing.T) {
	idle := layer.Idle(layer.IdleConfig{Idle: 5 * time.Second, WriteStall: 5 * time.Second})
	slow := layer.RateLimit(layer.Rate{PerSecond: 100_000, Burst: 1000}, layer.Rate{})
	all := flowing(t, 1, 3_000_000, one(slow), one(idle))
	near(t, "three megabytes", all[0], 29990*time.Millisecond) // a burst comes first
}

// TestWriteStall: the connection to a peer that does not read is dropped,
// whatever the peer sends.
func TestWriteStall(t *testing.T) {
	m := meet(t, one(layer.Idle(layer.IdleConfig{WriteStall: 10 * time.Second})), nil, []byte("x"))
	m.server.OnData = func(k *layertest.Keeper) {
		if len(k.Got) == 1 {
			_, _ = k.T.Write(make([]byte, 4<<20))
		}
	}
	m.Until("the connection", func() bool { return m.server.T != nil && m.client.T != nil })
	m.client.T.PauseReading()
	m.pass(5 * time.Second)
	for range 3 {
		_, _ = m.client.T.Write([]byte("y"))
		m.pass(2 * time.Second)
	}
	m.Until("the end", func() bool { return m.server.Lost })
	var e *layer.IdleError
	if !errors.As(m.server.Err, &e) || e.What != layer.WriteStalled {
		t.Errorf("lost with %v", m.server.Err)
	}
	if m.Now() < 10*time.Second || m.Now() > 14*time.Second {
		t.Errorf("lost after %v", m.Now())
	}
}

// TestMinRate: the connection to a peer that sends a byte now and then is
// dropped; that to a peer that is fast enough, or is not asked for more, is
// not.
func TestMinRate(t *testing.T) {
	watch := layer.Idle(layer.IdleConfig{MinRate: 10, Window: 5 * time.Second})
	m := meet(t, one(watch), nil, nil)
	m.Until("the connection", func() bool { return m.server.T != nil && m.client.T != nil })
	for range 10 {
		_, _ = m.client.T.Write(make([]byte, 20))
		m.pass(time.Second)
	}
	if m.server.Lost {
		t.Fatalf("lost although it was fast enough: %v", m.server.Err)
	}
	m.server.T.PauseReading()
	m.pass(time.Minute)
	if m.server.Lost {
		t.Fatalf("lost although nothing was wanted: %v", m.server.Err)
	}
	m.server.T.ResumeReading()
	for range 15 {
		if m.server.Lost {
			break
		}
		_, _ = m.client.T.Write([]byte("x"))
		m.pass(time.Second)
	}
	var e *layer.IdleError
	if !errors.As(m.server.Err, &e) || e.What != layer.TooSlow {
		t.Errorf("lost with %v", m.server.Err)
	}
}

// TestLimit: connections beyond the limit are refused, and one that ends makes
// room for another (R41, the caps in docs/promises.md, Exhaustion).
func TestLimit(t *testing.T) {
	for _, c := range []layer.LimitConfig{{Total: 3}, {PerAddress: 3}} {
		limiter := layer.NewLimiter(c)
		s := weirtest.NewSim(t, 1)
		var servers []*layertest.Keeper
		refused := 0
		_, err := s.Host("server").Loop().Listen("tcp", ":7", layer.ServerFunc(func(weir.Transport) weir.Protocol {
			k := &layertest.Keeper{Sim: s}
			servers = append(servers, k)
			return k
		}, func(_ weir.Transport, err *weir.AttemptError) {
			refused++
			var e *layer.LimitError
			if !errors.As(err, &e) || e.Limit != 3 || e.Addr.IsValid() != (c.PerAddress > 0) {
				t.Errorf("refused with %v", err)
			}
		}, limiter.Layer))
		if err != nil {
			t.Fatal(err)
		}
		var clients []*layertest.Keeper
		dial := func(host string) {
			k := &layertest.Keeper{Sim: s}
			clients = append(clients, k)
			s.Host(host).Loop().Connect("tcp", "server:7", k)
		}
		for range 5 {
			dial("client")
		}
		s.Until("three and two", func() bool { return len(servers) == 3 && refused == 2 && limiter.Count() == 3 })
		if c.PerAddress > 0 {
			dial("other")
			s.Until("another address", func() bool { return len(servers) == 4 })
			_ = servers[3].T.Close()
		}
		_ = servers[0].T.Close()
		s.Until("one gone", func() bool { return limiter.Count() == 2 })
		n := len(servers)
		dial("client")
		s.Until("room for another", func() bool { return len(servers) == n+1 })
		for _, k := range servers {
			k.T.Abort()
		}
		s.Until("all gone", func() bool { return limiter.Count() == 0 })
	}
}

// session is a recorded exchange.
func session(t *testing.T, request, reply []byte, l layer.Layer) {
	t.Helper()
	m := meet(t, one(l), nil, request)
	m.server.OnData = func(k *layertest.Keeper) {
		if len(k.Got) == len(request) {
			k.T.Loop().After(250*time.Millisecond, func() { _, _ = k.T.Write(reply); _ = k.T.Close() })
		}
	}
	m.Until("the end", func() bool { return m.server.Lost && m.client.Lost })
	if !bytes.Equal(m.client.Got, reply) {
		t.Fatalf("the client got %d bytes of %d", len(m.client.Got), len(reply))
	}
}

// TestLog: one event is one line, whatever the peer sends (docs/promises.md,
// Logs).
func TestLog(t *testing.T) {
	evil := []byte("GET /\r\n1 +0.0 - \"forged\"\x1b[2J\x00\xff\"\\\u2028" + strings.Repeat("n", 64<<10))
	for _, c := range []layer.LogConfig{{}, {Format: layer.LogHex}, {Format: layer.LogCount}, {Limit: 10}, {Format: layer.LogHex, Limit: 10}} {
		var out bytes.Buffer
		writes := 0
		s := sink.New(writerFunc(func(p []byte) (int, error) {
			writes++
			return out.Write(p)
		}), sink.Config{Batch: 1})
		session(t, evil, []byte("\x1b]0;title\x07"), layer.Log(s, c))
		for s.Step() {
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if writes != len(lines) {
			t.Errorf("%+v: %d lines in %d writes", c, len(lines), writes)
		}
		for i, line := range lines {
			if strings.Trim(line, "\x20!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~") != "" {
				t.Errorf("%+v: line %d is not printable: %q", c, i, line)
			}
			if !strings.HasPrefix(line, "1 +0.") {
				t.Errorf("%+v: line %d: %q", c, i, line)
			}
			if c.Limit > 0 && len(line) > 200 {
				t.Errorf("%+v: line %d has %d bytes", c, i, len(line))
			}
		}
		if !strings.HasPrefix(lines[len(lines)-1], "1 +0.25") || !strings.HasSuffix(lines[len(lines)-1], " -") {
			t.Errorf("%+v: the last line: %q", c, lines[len(lines)-1])
		}
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestReplay: a recording is played back byte for byte and at the recorded
// times, and waits while no bytes are wanted.
func TestReplay(t *testing.T) {
	var rec bytes.Buffer
	s := sink.New(&rec, sink.Config{Gap: layer.RecordingGap})
	request := make([]byte, 5000)
	for i := range request {
		request[i] = byte(i)
	}
	reply := bytes.Repeat([]byte("reply\r\n\x00"), 1000)
	session(t, request, reply, layer.Record(s))
	for s.Step() {
	}
	events, err := layer.ReadRecording(bytes.NewReader(rec.Bytes()), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		config layer.ReplayConfig
		want   []byte
		after  time.Duration
	}{
		{layer.ReplayConfig{}, request, 0},
		{layer.ReplayConfig{Sent: true}, reply, 250 * time.Millisecond},
		{layer.ReplayConfig{Sent: true, Fast: true}, reply, 0},
	} {
		s := weirtest.NewSim(t, 1)
		l := s.Host("one").Loop()
		k := &layertest.Keeper{Sim: s}
		if err := layer.Replay(l, events, c.config, func(weir.Transport) weir.Protocol { return k }); err != nil {
			t.Fatal(err)
		}
		s.Until("the end", func() bool { return k.Lost })
		if !bytes.Equal(k.Got, c.want) || k.Err != nil || k.At < c.after || k.At > c.after+10*time.Millisecond {
			t.Errorf("%+v: %d bytes of %d, the last after %v, %v", c.config, len(k.Got), len(c.want), k.At, k.Err)
		}
	}
	for _, bad := range []string{"", "x", "0 +0.000000 < 1 \"x\"\n", "1 0.000000 < 1 \"x\"", "1 +0.0 < 1 \"x\"", "1 +0.000000 < 2 \"x\"", "1 +0.000000 < 1 x", "1 +0.000000 ? 1", "1 +0.000000 - x"} {
		if _, err := layer.ReadRecording(strings.NewReader(bad), 0); err == nil {
			t.Errorf("%q is a recording", bad)
		}
	}
}

// TestReplayCut: a recording that breaks off anywhere, because its writer was
// killed, replays the bytes that it has and then a loss that says so.
func TestReplayCut(t *testing.T) {
	var rec bytes.Buffer
	s := sink.New(&rec, sink.Config{Gap: layer.RecordingGap})
	request := []byte("a request\r\n")
	session(t, request, []byte("a reply\r\n"), layer.Record(s))
	for s.Step() {
	}
	whole := bytes.IndexByte(rec.Bytes(), '\n') + 1 // without its first line it is not a recording
	for n := whole; n <= rec.Len(); n++ {
		events, err := layer.ReadRecording(bytes.NewReader(rec.Bytes()[:n]), 0)
		if err != nil {
			t.Fatalf("cut at byte %d: %v", n, err)
		}
		s := weirtest.NewSim(t, 1)
		k := &layertest.Keeper{Sim: s}
		if err := layer.Replay(s.Host("one").Loop(), events, layer.ReplayConfig{}, func(weir.Transport) weir.Protocol { return k }); err != nil {
			t.Fatal(err)
		}
		s.Until("the end", func() bool { return k.Lost })
		if !bytes.HasPrefix(request, k.Got) {
			t.Errorf("cut at byte %d: %q", n, k.Got)
		}
		ended := slices.ContainsFunc(events, func(e layer.Traffic) bool { return e.What == layer.PeerEnd || e.What == layer.Lost })
		if ended && k.Err != nil || !ended && !errors.Is(k.Err, layer.ErrReplayCut) {
			t.Errorf("cut at byte %d: ended %v, lost with %v", n, ended, k.Err)
		}
	}
}

// TestReplayPaused: the recording stands still while no bytes are wanted.
func TestReplayPaused(t *testing.T) {
	events := []layer.Traffic{
		{What: layer.Received, After: time.Second, Data: []byte("a")},
		{What: layer.Received, After: 2 * time.Second, Data: []byte("b")},
		{What: layer.Lost, After: 3 * time.Second, Text: "reset"},
	}
	s := weirtest.NewSim(t, 1)
	l := s.Host("one").Loop()
	k := &layertest.Keeper{Sim: s}
	k.OnData = func(k *layertest.Keeper) {
		if len(k.Got) == 1 {
			k.T.PauseReading()
			l.After(time.Minute, k.T.ResumeReading)
		}
	}
	if err := layer.Replay(l, events, layer.ReplayConfig{}, func(weir.Transport) weir.Protocol { return k }); err != nil {
		t.Fatal(err)
	}
	s.Until("the end", func() bool { return k.Lost })
	if string(k.Got) != "ab" || !errors.Is(k.Err, layer.ErrReplayLost) || k.At < 62*time.Second || k.At > 62*time.Second+10*time.Millisecond {
		t.Errorf("%q, the last after %v, %v", k.Got, k.At, k.Err)
	}
}

// TestFlowSteady: these layers add no allocation to a message (R6).
func TestFlowSteady(t *testing.T) {
	stack := []layer.Layer{
		layer.RateLimit(layer.Rate{PerSecond: 1 << 40}, layer.Rate{PerSecond: 1 << 40}),
		layer.Idle(layer.IdleConfig{Idle: time.Hour, WriteStall: time.Hour, MinRate: 1, Window: time.Hour}),
		layer.Limit(layer.LimitConfig{Total: 10, PerAddress: 10}),
		layer.Log(sink.New(io.Discard, sink.Config{}), layer.LogConfig{Format: layer.LogHex}),
		fault(layer.FaultConfig{In: layer.Faults{ResetChance: 1e-18}}),
	}
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // package net allocates
		}
		if n := layertest.Allocs(t, name, stack, stack); n != 0 {
			t.Errorf("%s: %v allocations a message", name, n)
		}
	}
}
