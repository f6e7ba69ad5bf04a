package utp_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/utp"
	"github.com/weir-io/weir/weirtest"
)

// bottleneck is a host in the middle with a slow line and a queue in front of it.
type bottleneck struct {
	rate  int // bytes a second
	holds int // bytes
	loop  *weir.Loop
	to    netip.AddrPort

	free   time.Time // when the line is
	queued int
	begin  time.Time // of the measurement
	sum    time.Duration
	n      int
	passed int
	lost   int
}

// newBottleneck stands between to and one peer.
func newBottleneck(t *testing.T, s *weirtest.Sim, to netip.AddrPort, rate, holds int) *bottleneck {
	t.Helper()
	return &bottleneck{rate: rate, holds: holds, loop: s.Host("hand").Loop(), to: to}
}

// door opens a port of the middle: what comes to it passes the line to the server, and
// the answers go back past it.
func (b *bottleneck) door(t *testing.T, at string) netip.AddrPort {
	t.Helper()
	var peer netip.AddrPort
	pe, err := b.loop.ListenPacket("udp4", at, weir.PacketFunc(func(e *weir.PacketEndpoint, p []byte, from weir.PacketAddr) {
		if from.IP == b.to {
			_ = e.SendTo(p, weir.PacketAddr{IP: peer})
			return
		}
		peer = from.IP
		now := b.loop.Now()
		if b.queued+len(p) > b.holds {
			b.lost++
			return
		}
		if b.free.Before(now) {
			b.free = now
		}
		waits := b.free.Sub(now)
		b.free = b.free.Add(time.Duration(len(p)) * time.Second / time.Duration(b.rate))
		b.queued += len(p)
		if !b.begin.IsZero() {
			b.sum += waits
			b.n++
			b.passed += len(p)
		}
		p = bytes.Clone(p)
		b.loop.At(b.free, func() {
			b.queued -= len(p)
			_ = e.SendTo(p, weir.PacketAddr{IP: b.to})
		})
	}).Protocol())
	if err != nil {
		t.Fatal(err)
	}
	return pe.Local().IP
}

// endless writes as fast as it may.
type endless struct {
	ear
	piece []byte
}

func (e *endless) ConnectionMade(t weir.Transport) {
	e.t = t
	_, _ = t.Write(e.piece)
}
func (e *endless) WriteDrained() { _, _ = e.t.Write(e.piece) }

// counter counts what it gets.
type counter struct {
	weir.NopProtocol
	n int
}

func (c *counter) DataReceived(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}

// TestBottleneck: on a line whose queue holds 500 ms, a connection alone fills at least
// 90 % of the line and keeps the queue near its target of 100 ms, without losing a packet
// once it is steady (RFC 6817); two share it within 2 to 1, whether they begin together or
// one finds the queue filled by the other.
func TestBottleneck(t *testing.T) {
	if race.Enabled {
		t.Skip("a simulated world has no races")
	}
	const rate = 1_000_000
	for _, c := range []struct {
		flows int
		late  time.Duration
	}{{1, 0}, {2, 0}, {2, 10 * time.Second}} {
		flows := c.flows
		s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{Latency: 10 * time.Millisecond}))
		w := newWorld(t, s, utp.Config{})
		var got []*counter
		w.listen(t, func(weir.Transport) weir.Protocol {
			got = append(got, &counter{})
			return got[len(got)-1]
		})
		b := newBottleneck(t, s, w.to, rate, rate/2)
		for i := range flows {
			if i > 0 {
				_ = s.RunFor(c.late)
			}
			w.b.Dial(b.door(t, s.Host("hand").Addr(uint16(6000+i))), &endless{piece: noise(100_000)})
		}
		if err := s.RunFor(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		if len(got) != flows {
			t.Fatalf("%d connections", len(got))
		}
		b.begin, b.lost = b.loop.Now(), 0
		before := make([]int, flows)
		for i, c := range got {
			before[i] = c.n
		}
		if err := s.RunFor(time.Minute); err != nil {
			t.Fatal(err)
		}
		delay := b.sum / time.Duration(b.n)
		used := float64(b.passed) / (60 * rate)
		t.Logf("%d flows: %.1f%% of the line, queue %v on average, %d lost", flows, 100*used, delay, b.lost)
		if used < 0.9 || b.lost > 0 {
			t.Errorf("%d flows: %.1f%% of the line, %d packets lost", flows, 100*used, b.lost)
		}
		if delay < 50*time.Millisecond || delay > 130*time.Millisecond {
			t.Errorf("%d flows: the queue adds %v", flows, delay)
		}
		if flows == 2 {
			x, y := got[0].n-before[0], got[1].n-before[1]
			t.Logf("shares %d and %d", x, y)
			if x > 2*y || y > 2*x {
				t.Errorf("two flows got %d and %d bytes", x, y)
			}
		}
	}
}

// TestNagle: small writes leave one by one, or with Config.Nagle together while one is
// on its way.
func TestNagle(t *testing.T) {
	for nagle, most := range map[bool]int{false: 100, true: 5} {
		s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{Latency: 50 * time.Millisecond}))
		w := newWorld(t, s, utp.Config{Nagle: nagle})
		server := &ear{}
		w.listen(t, func(weir.Transport) weir.Protocol { return server })
		b := newBottleneck(t, s, w.to, 1_000_000, 100_000)
		client := &ear{}
		w.b.Dial(b.door(t, s.Host("hand").Addr(6000)), client)
		s.Until("both ends connected", func() bool { return client.made+server.made == 2 })
		b.begin = b.loop.Now()
		for range 20 {
			client.t.Loop().Soon(func() { _, _ = client.t.Write([]byte("x")) })
			_ = s.RunFor(time.Millisecond)
		}
		s.Until("all of it", func() bool { return len(server.got) == 20 })
		if b.n > most || !nagle && b.n < 20 {
			t.Errorf("Nagle %v: %d packets for 20 writes", nagle, b.n)
		}
	}
}
