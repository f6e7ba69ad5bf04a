package packet_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/sink"
	"github.com/weir-io/weir/weirtest"
)

// TestRateLimit: a flow passes its burst, then its rate; what is faster is dropped.
func TestRateLimit(t *testing.T) {
	c := &packet.Counts{}
	rate := layer.Rate{PerSecond: 1000, Burst: 100}
	w := newWorld(t, packet.RateLimit(rate, layer.Rate{}, c))
	for range 20 {
		send(t, w.ec, strings.Repeat("x", 50), w.es.Local())
	}
	w.run(t, 50*time.Millisecond)
	if n := len(w.server.got); n != 2 || c.Full.Load() != 18 {
		t.Errorf("%d came at once, %v", n, c)
	}
	w.run(t, time.Second)
	send(t, w.ec, strings.Repeat("x", 1000), w.es.Local())
	w.run(t, time.Millisecond*50)
	if n := len(w.server.got); n != 3 {
		t.Error("one that is longer than the burst never passes")
	}
	shared := layer.NewBucket(rate)
	w = newWorld(t, packet.RateLimitShared(nil, shared, nil))
	for range 20 {
		send(t, w.es, strings.Repeat("x", 50), w.ec.Local())
	}
	w.run(t, 50*time.Millisecond)
	if n := len(w.client.got); n != 2 {
		t.Errorf("%d came of what is shared", n)
	}
}

// TestIdle: the endpoint ends after silence, and traffic either way puts it off.
func TestIdle(t *testing.T) {
	w := newWorld(t, packet.Idle(time.Second))
	for range 3 {
		w.run(t, 800*time.Millisecond)
		send(t, w.ec, "x", w.es.Local())
		w.run(t, 800*time.Millisecond)
		w.es.Loop().Soon(func() { send(t, w.es, "x", w.ec.Local()) }) // by the loop's own clock
	}
	if w.server.lost != 0 {
		t.Fatal("it ended while there was traffic")
	}
	w.run(t, 1200*time.Millisecond)
	var idle *layer.IdleError
	if w.server.lost != 1 || !errors.As(w.server.err, &idle) || idle.After != time.Second {
		t.Error(w.server.lost, w.server.err)
	}
}

// TestLimit: peers beyond a number are not heard until others are forgotten.
func TestLimit(t *testing.T) {
	c := &packet.Counts{}
	w := newWorld(t, packet.Limit(packet.LimitConfig{LimitConfig: layer.LimitConfig{Total: 3, PerAddress: 2}, Idle: time.Minute, Counts: c}))
	h := w.Host("client")
	peer := func(host *weirtest.SimHost, port uint16) *weir.PacketEndpoint {
		return listen(t, host.Loop(), host.Addr(port), &ear{}, nil)
	}
	second, third := peer(h, 2), peer(h, 3)
	for _, e := range []*weir.PacketEndpoint{w.ec, second, third, w.ec} {
		send(t, e, "x", w.es.Local())
		w.run(t, 10*time.Millisecond)
	}
	if len(w.server.got) != 3 || c.Refused.Load() != 1 {
		t.Errorf("of three ports of one address %d datagrams, %v", len(w.server.got), c)
	}
	other := w.Host("other")
	for port := range uint16(3) {
		send(t, peer(other, port+1), "x", w.es.Local())
	}
	w.run(t, 10*time.Millisecond)
	if len(w.server.got) != 4 || c.Refused.Load() != 3 {
		t.Errorf("another address: %d datagrams, %v", len(w.server.got), c)
	}
	w.run(t, 2*time.Minute)
	send(t, third, "x", w.es.Local())
	w.run(t, 10*time.Millisecond)
	if len(w.server.got) != 5 {
		t.Error("a peer that was silent still counts")
	}
}

// TestAccess: datagrams of addresses that are refused do not pass, either way.
func TestAccess(t *testing.T) {
	c := &packet.Counts{}
	var bad netip.Addr
	no := errors.New("not this one")
	w := newWorld(t, packet.Access(func(a netip.AddrPort) error {
		if a.Addr() == bad {
			return no
		}
		return nil
	}, c))
	if got := w.pass(t, "x"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	bad = w.ec.Local().IP.Addr()
	if got := w.pass(t, "x"); len(got) != 0 || c.Refused.Load() != 1 {
		t.Errorf("%q, %v", got, c)
	}
	if err := w.es.SendTo([]byte("x"), w.ec.Local()); !errors.Is(err, no) {
		t.Error(err)
	}
}

// TestRecordReplay: what was recorded is played to a protocol as it came.
func TestRecordReplay(t *testing.T) {
	var file bytes.Buffer
	s := sink.New(&file, sink.Config{Gap: layer.RecordingGap})
	w := newWorld(t, packet.Record(s))
	w.server.on = func(p []byte, from weir.PacketAddr) { send(t, w.es, "re:"+string(p), from) }
	w.pass(t, "one", "", "\x00\xff\n\"")
	h := w.Host("other")
	second := listen(t, h.Loop(), h.Addr(9), &ear{}, nil)
	send(t, second, "of another", w.es.Local())
	w.run(t, time.Second)
	w.es.Abort()
	w.run(t, time.Second)
	for s.Step() {
	}
	text := file.String()
	for _, line := range []string{" + " + w.es.Local().String() + " " + w.ec.Local().String(), ` > 6 "re:one"`, ` < 0 ""`, `2 +`, ` < 10 "of another"`, "1 +", " - \"weir:"} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	for _, fast := range []bool{false, true} {
		world := weirtest.NewSim(t, 1)
		rec := packet.NewRecording(strings.NewReader(text), false)
		closed := 0
		p := &ear{}
		var at []time.Duration
		p.on = func([]byte, weir.PacketAddr) { at = append(at, world.Now()) }
		l := world.Host("a").Loop()
		e, err := packet.Stack(l, func(lowest weir.PacketProtocol) (*weir.PacketEndpoint, error) {
			return packet.Replay(l, func(got func([]packet.Event, error)) { got(rec.Piece()) },
				packet.ReplayConfig{Fast: fast, Linger: 3 * time.Second}, func() { closed++ }, lowest)
		}, p, []packet.Layer{newPlain})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.SendTo([]byte("x"), w.ec.Local()); err != nil {
			t.Error(err)
		}
		world.Until("the end", func() bool { return p.lost == 1 })
		if got := strings.Join(p.got, "|"); got != "one||\x00\xff\n\"|of another" || p.err != nil || closed != 1 {
			t.Errorf("%q, %v, closed %d times", got, p.err, closed)
		}
		if p.from[0] != w.ec.Local() || p.from[3] != second.Local() {
			t.Error(p.from)
		}
		if took := at[3] - at[0]; fast != (took < 100*time.Millisecond) || world.Now()-at[3] < 3*time.Second {
			t.Errorf("fast %v: took %v", fast, took)
		}
	}
	sent := packet.NewRecording(strings.NewReader(text), true)
	if e, err := sent.Next(); err != nil || string(e.Data) != "re:one" {
		t.Error(e, err)
	}
}

// TestRecordingBroken: a recording that breaks off ends there; one that is wrong says
// where.
func TestRecordingBroken(t *testing.T) {
	const made = "1 +0.000000 + 127.0.0.1:1 127.0.0.1:2\n"
	for text, want := range map[string]string{
		"":                               "the recording is empty",
		made + "1 +0.1":                  "EOF",
		made + "1 +0.000001 < 1 \"x\"\n": "EOF",
		made + "x\n" + made:              "line 2 of the recording",
		"1 +0.000001 < 1 \"x\"\n":        "no beginning",
		"0 +0.000000 ! \"full\"\n1 +0.000001 [\n": "EOF",
	} {
		rec := packet.NewRecording(strings.NewReader(text), false)
		var err error
		for err == nil {
			_, err = rec.Next()
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// FuzzRecording: whatever the bytes are, reading ends, and what it returns is bounded
// by them.
func FuzzRecording(f *testing.F) {
	f.Add([]byte("1 +0.000000 + 127.0.0.1:1 127.0.0.1:2\n1 +0.000001 < 3 \"abc\"\n1 +0.000002 > 0 \"\"\n1 +0.000003 -\n"), false)
	f.Add([]byte("0 +0.000000 ! \"full\"\n2 +0.000001 < 1 \"\\xff\"\n2 +1.0"), true)
	f.Fuzz(func(t *testing.T, text []byte, sent bool) {
		rec := packet.NewRecording(bytes.NewReader(text), sent)
		size, lines := 0, bytes.Count(text, []byte("\n"))+1
		for n := 0; ; n++ {
			e, err := rec.Next()
			if err != nil {
				if _, again := rec.Next(); !errors.Is(again, err) {
					t.Fatalf("%v, and then %v", err, again)
				}
				var bad *layer.RecordingError
				if errors.As(err, &bad) && (bad.Line < 1 || bad.Line > lines) {
					t.Fatalf("line %d of %d", bad.Line, lines)
				}
				return
			}
			if size += len(e.Data); size > len(text) || n > lines || e.After < 0 {
				t.Fatalf("%d bytes of %d, %d datagrams of %d lines", size, len(text), n, lines)
			}
		}
	})
}

// pinger sends each datagram back.
type pinger struct {
	e     *weir.PacketEndpoint
	count int
}

func (p *pinger) EndpointMade(e *weir.PacketEndpoint) { p.e = e }
func (p *pinger) PacketReceived(b []byte, from weir.PacketAddr) {
	p.count++
	_ = p.e.SendTo(b, from)
}
func (p *pinger) EndpointLost(error) {}

// TestAllocations: a datagram through any layer costs no allocation, on every backend
// whose own cost is none.
func TestAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	fast := layer.Rate{PerSecond: 1 << 40}
	ok := func(netip.AddrPort) error { return nil }
	for name, layers := range map[string][]packet.Layer{
		"plain":     {newPlain},
		"fault":     {packet.Fault(packet.FaultConfig{In: packet.Faults{Loss: 1e-12}, Out: packet.Faults{Loss: 1e-12}})},
		"corrupt":   {packet.Fault(packet.FaultConfig{In: packet.Faults{Corrupt: 1}, Out: packet.Faults{Corrupt: 1}})},
		"latency":   {packet.Fault(packet.FaultConfig{In: packet.Faults{Latency: time.Microsecond}, Out: packet.Faults{Latency: time.Microsecond}})},
		"ratelimit": {packet.RateLimit(fast, fast, nil)},
		"idle":      {packet.Idle(time.Hour)},
		"limit":     {packet.Limit(packet.LimitConfig{LimitConfig: layer.LimitConfig{Total: 9, PerAddress: 9}})},
		"access":    {packet.Access(ok, nil)},
		"observe":   {packet.Observe(func(layer.Traffic) {})},
		"all": {
			newPlain, packet.Fault(packet.FaultConfig{}), packet.RateLimit(fast, fast, nil), packet.Idle(time.Hour),
			packet.Limit(packet.LimitConfig{LimitConfig: layer.LimitConfig{Total: 9}}), packet.Access(ok, nil), packet.Observe(func(layer.Traffic) {}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, l *weir.Loop) {
				if b := l.Backend().Name; b == "portable" || b == "sim" {
					t.Skip("its own cost is not none")
				}
				a, b := &pinger{}, &pinger{}
				ea := listen(t, l, local, a, layers)
				eb := listen(t, l, local, b, nil)
				send(t, eb, strings.Repeat("x", 64), ea.Local())
				turns := func(n int) {
					for want := b.count + n; b.count < want; {
						if err := l.Turn(time.Second); err != nil {
							t.Fatal(err)
						}
					}
				}
				turns(200)
				if n := testing.AllocsPerRun(20, func() { turns(10) }); n != 0 {
					t.Errorf("10 datagrams cost %v allocations", n)
				}
			})
		})
	}
}
