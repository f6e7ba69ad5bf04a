package utp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/utp"
	"github.com/weir-io/weir/weirtest"
)

// wire writes a packet by hand.
func wire(kind byte, id uint16, window uint32, seq, ack uint16, data ...byte) []byte {
	b := []byte{kind<<4 | 1, 0}
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, window)
	b = binary.BigEndian.AppendUint16(b, seq)
	b = binary.BigEndian.AppendUint16(b, ack)
	return append(b, data...)
}

const (
	wData, wFin, wState, wReset, wSyn = 0, 1, 2, 3, 4
)

// peer is a peer of which each packet is made by the test.
type peer struct {
	t    *testing.T
	pe   *weir.PacketEndpoint
	to   netip.AddrPort
	got  [][]byte
	hear func(p []byte)
}

func newPeer(t *testing.T, s *weirtest.Sim, to netip.AddrPort) *peer {
	t.Helper()
	h := &peer{t: t, to: to}
	pe, err := s.Host("hand").Loop().ListenPacket("udp4", "0.0.0.0:0", weir.PacketFunc(func(_ *weir.PacketEndpoint, p []byte, _ weir.PacketAddr) {
		h.got = append(h.got, bytes.Clone(p))
		if h.hear != nil {
			h.hear(p)
		}
	}).Protocol())
	if err != nil {
		t.Fatal(err)
	}
	h.pe = pe
	return h
}

func (h *peer) send(p []byte) { _ = h.pe.SendTo(p, weir.PacketAddr{IP: h.to}) }

// last is the seq and ack of the last packet that came.
func (h *peer) last() (kind byte, seq, ack uint16) {
	h.t.Helper()
	if len(h.got) == 0 {
		h.t.Fatal("nothing came")
	}
	p := h.got[len(h.got)-1]
	return p[0] >> 4, binary.BigEndian.Uint16(p[16:]), binary.BigEndian.Uint16(p[18:])
}

// TestSpoofedReset: who does not see the packets of a connection and knows its id
// cannot end it, but for one of the few numbers that are on their way.
func TestSpoofedReset(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{})
	server := &ear{}
	w.listen(t, func(weir.Transport) weir.Protocol { return server })
	h := newPeer(t, s, w.to)
	h.send(wire(wSyn, 100, 1<<20, 1, 0))
	s.Until("the answer", func() bool { return len(h.got) > 0 })
	_, seq, _ := h.last()
	h.send(wire(wData, 101, 1<<20, 2, seq-1, 'x'))
	s.Until("the connection", func() bool { return len(server.got) == 1 })
	hits := 0
	for ack := range 1 << 16 {
		if d := uint16(ack) - seq; d <= 1 || d >= 0xfffd {
			hits++
			continue
		}
		h.send(wire(wReset, 101, 0, 0, uint16(ack)))
		h.send(wire(wReset, 100, 0, 0, uint16(ack)))
		if ack%64 == 0 {
			_ = s.RunFor(10 * time.Millisecond)
		}
	}
	_ = s.RunFor(time.Second)
	if server.lost > 0 {
		t.Fatal("a forged reset ended the connection:", server.err)
	}
	if hits > 5 {
		t.Errorf("%d numbers were left out", hits)
	}
	h.send(wire(wReset, 101, 0, 0, seq-1))
	s.Until("the real one", func() bool { return server.lost == 1 })
	if !errors.Is(server.err, syscall.ECONNRESET) {
		t.Error(server.err)
	}
}

// TestAckOutside: a packet that acknowledges what was never sent is dropped whole.
func TestAckOutside(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{})
	server := &ear{}
	w.listen(t, func(weir.Transport) weir.Protocol { return server })
	h := newPeer(t, s, w.to)
	h.send(wire(wSyn, 100, 1<<20, 1, 0))
	s.Until("the answer", func() bool { return len(h.got) > 0 })
	_, seq, _ := h.last()
	h.send(wire(wData, 101, 1<<20, 2, seq-1, 'a'))
	s.Until("the connection", func() bool { return len(server.got) == 1 })
	for _, ack := range []uint16{seq, seq + 1, seq + 100, seq + 1<<15, seq - 3000} {
		h.send(wire(wData, 101, 1<<20, 3, ack, 'b'))
	}
	_ = s.RunFor(time.Second)
	if string(server.got) != "a" {
		t.Errorf("got %q", server.got)
	}
	// A selective acknowledgement of everything acknowledges what was sent, once.
	server.t.Loop().Soon(func() { _, _ = server.t.Write(noise(2000)) })
	_ = s.RunFor(time.Millisecond * 10)
	b := wire(wState, 101, 1<<20, 3, seq-1)
	b[1] = 1
	b = append(append(b, 0, 252), bytes.Repeat([]byte{255}, 252)...)
	for range 100 {
		h.send(b)
	}
	_ = s.RunFor(10 * time.Second)
	if server.lost > 0 {
		t.Error("lost:", server.err)
	}
	h.send(wire(wData, 101, 1<<20, 3, seq+3, 'c'))
	_ = s.RunFor(time.Second)
	if string(server.got) != "ac" {
		t.Errorf("got %q", server.got)
	}
}

// TestSynFlood: SYNs from addresses that do not answer make no protocol and keep no
// more than Config.HalfOpen connections, and one who answers gets in all the while.
func TestSynFlood(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{HalfOpen: 50})
	made := 0
	server := &ear{}
	w.listen(t, func(weir.Transport) weir.Protocol { made++; return server })
	flood := func(n int) {
		for i := range n {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 4000)
			s.Inject(from, w.to, wire(wSyn, uint16(i), 0, 1, 0))
		}
	}
	flood(2000)
	_ = s.RunFor(100 * time.Millisecond)
	if made > 0 || w.a.Connections() > 50 {
		t.Errorf("%d protocols and %d connections", made, w.a.Connections())
	}
	client := &ear{send: []byte("hello")}
	s.Host("b").Loop().Soon(func() { w.b.Dial(w.to, client) })
	s.Until("the client in", func() bool { return string(server.got) == "hello" })
	flood(2000)
	_ = s.RunFor(time.Minute)
	if made != 1 || w.a.Connections() != 1 {
		t.Errorf("%d protocols and %d connections after a minute", made, w.a.Connections())
	}
}

// TestBounds: connections beyond a bound are refused, in all and from one address.
func TestBounds(t *testing.T) {
	for _, cfg := range []utp.Config{{Connections: 3}, {PerAddress: 3}} {
		s := weirtest.NewSim(t, 1)
		w := newWorld(t, s, cfg)
		w.listen(t, func(weir.Transport) weir.Protocol { return &ear{} })
		var all []*ear
		for i := range 5 {
			e := &ear{}
			from, err := utp.Open(s.Host("b").Loop(), "udp4", "0.0.0.0:0", utp.Config{Random: chance(uint64(i))})
			if err != nil {
				t.Fatal(err)
			}
			from.Dial(w.to, e)
			all = append(all, e)
		}
		_ = s.RunFor(10 * time.Second)
		made, refused := 0, 0
		for _, e := range all {
			made += e.made
			if errors.Is(e.failed, syscall.ECONNREFUSED) {
				refused++
			}
		}
		if made != 3 || refused != 2 {
			t.Errorf("%+v: %d made, %d refused", cfg, made, refused)
		}
	}
}

// TestMemory: connections of one endpoint keep no more than Config.Memory, whatever
// their peers send early.
func TestMemory(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{Memory: 100_000})
	w.listen(t, func(weir.Transport) weir.Protocol { return &ear{} })
	for conn := range uint16(20) {
		h := newPeer(t, s, w.to)
		h.send(wire(wSyn, 100*conn, 1<<20, 1, 0))
		s.Until("the answer", func() bool { return len(h.got) > 0 })
		_, seq, _ := h.last()
		for i := range uint16(200) {
			h.send(wire(wData, 100*conn+1, 1<<20, 3+i, seq-1, 'x'))
		}
		_ = s.RunFor(100 * time.Millisecond)
	}
	if m := w.a.Memory(); m > 102_000 || m < 50_000 {
		t.Errorf("the endpoint keeps %d bytes", m)
	}
	_ = s.RunFor(10 * time.Minute)
	w.atRest(t)
}

// TestSteadyAllocs: traffic that is steady allocates nothing.
func TestSteadyAllocs(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // package net's own
		}
		t.Run(name, func(t *testing.T) {
			l, err := weir.NewLoop(weir.WithBackendName(name))
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			a, err := utp.Open(l, "udp4", "127.0.0.1:0", utp.Config{})
			if err != nil {
				t.Fatal(err)
			}
			b, err := utp.Open(l, "udp4", "127.0.0.1:0", utp.Config{})
			if err != nil {
				t.Fatal(err)
			}
			count := 0
			if _, err := a.Listen(func(weir.Transport) weir.Protocol { return &rally{count: &count} }); err != nil {
				t.Fatal(err)
			}
			b.Dial(a.Packets().Local().IP, &rally{count: &count, serves: true})
			turns := func(messages int) {
				for want := count + messages; count < want; {
					if err := l.Turn(-1); err != nil {
						t.Fatal(err)
					}
				}
			}
			turns(2000)
			if n := testing.AllocsPerRun(100, func() { turns(20) }); n != 0 {
				t.Errorf("%v allocations in 20 messages", n)
			}
		})
	}
}

// rally sends what it gets back to where it came from, and counts.
type rally struct {
	t      weir.Transport
	count  *int
	serves bool
}

func (r *rally) ConnectionMade(t weir.Transport) {
	r.t = t
	if r.serves {
		_, _ = t.Write(make([]byte, 3000))
	}
}

func (r *rally) DataReceived(p []byte) (int, error) {
	*r.count++
	return r.t.Write(p)
}

func (r *rally) ConnectionLost(error) {}

// FuzzModel: a connection's receiving direction against a model. Each byte of the
// script is a packet: which of 64 to send, in whatever order and how often. What the
// protocol gets is the packets up to the first that is missing, and so says the ack.
func FuzzModel(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3})
	f.Add([]byte{3, 2, 1, 0, 63, 5, 4})
	f.Add([]byte{0, 0, 2, 2, 1, 200, 130})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 500 {
			return
		}
		s := weirtest.NewSim(t, 1)
		w := newWorld(t, s, utp.Config{})
		server := &ear{}
		w.listen(t, func(weir.Transport) weir.Protocol { return server })
		h := newPeer(t, s, w.to)
		h.send(wire(wSyn, 100, 1<<20, 65530, 0)) // the numbers wrap
		s.Until("the answer", func() bool { return len(h.got) > 0 })
		_, seq, _ := h.last()
		h.send(wire(wState, 101, 1<<20, 65531, seq-1))
		_ = s.RunFor(10 * time.Millisecond)

		sent := map[int]bool{}
		var want []byte
		next := 0
		for _, op := range script {
			k := int(op & 63)
			h.send(wire(wData, 101, 1<<20, uint16(65531+k), seq-1, byte(k), op>>6, byte(k)))
			if !sent[k] {
				sent[k] = true
			}
			_ = s.RunFor(3 * time.Millisecond)
			for ; sent[next]; next++ {
				want = append(want, byte(next))
			}
			var got []byte
			for i := 0; i+2 < len(server.got); i += 3 {
				got = append(got, server.got[i])
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("got % x, want % x", got, want)
			}
		}
		_ = s.RunFor(time.Second) // the acknowledgement that waits
		if len(script) > 0 {
			if _, _, ack := h.last(); ack != uint16(65530+next) {
				t.Fatalf("acknowledged %d, want %d", ack, uint16(65530+next))
			}
		}
	})
}

// FuzzMiddle: two endpoints with a hostile middle, which drops, doubles, holds, cuts and
// changes what passes, and forges packets. Without changes every byte arrives; with
// them nothing panics, all ends in bounded time and nothing stays.
func FuzzMiddle(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 2, 0, 3, 0, 0})
	f.Add([]byte{1, 1, 1, 1, 1, 1})
	f.Add([]byte{0, 4, 16, 255, 5, 40, 6, 0, 7, 3, 9})
	f.Fuzz(func(t *testing.T, script []byte) {
		s := weirtest.NewSim(t, 1)
		w := newWorld(t, s, utp.Config{ConnectTimeout: time.Hour, Timeout: time.Hour, KeepAlive: -1})
		honest, at, drops := true, 0, 0
		next := func() byte {
			if at >= len(script) || at > 400 {
				return 0
			}
			at++
			return script[at-1]
		}
		var client netip.AddrPort
		var held []byte
		var heldTo weir.PacketAddr
		middle := netip.MustParseAddrPort(s.Host("hand").Addr(6000))
		_, err := s.Host("hand").Loop().ListenPacket("udp4", middle.String(), weir.PacketFunc(func(e *weir.PacketEndpoint, p []byte, from weir.PacketAddr) {
			to := weir.PacketAddr{IP: w.to}
			if from.IP == w.to {
				to.IP = client
			} else {
				client = from.IP
			}
			p = bytes.Clone(p)
			switch next() & 7 {
			case 1:
				if drops++; drops <= 5 { // more in a row end the set-up
					return
				}
			case 2:
				_ = e.SendTo(p, to)
			case 3:
				if held == nil {
					held, heldTo = p, to
					return
				}
			case 4:
				honest = false
				if i := int(next()); i < len(p) {
					p[i] ^= 1 << (next() & 7)
				}
			case 5:
				honest = false
				p = p[:min(int(next()), len(p))]
			case 6:
				honest = false
				forged := bytes.Clone(p)
				forged[0] = wReset<<4 | 1
				binary.BigEndian.PutUint16(forged[18:], uint16(next())<<8|uint16(next()))
				_ = e.SendTo(forged, to)
			case 7:
				honest = false
				ext := append(bytes.Clone(p[:20]), 1, next())
				ext[1] = 1
				for range next() {
					ext = append(ext, next())
				}
				_ = e.SendTo(ext, to)
			}
			_ = e.SendTo(p, to)
			if held != nil && next()&1 == 1 {
				_ = e.SendTo(held, heldTo)
				held = nil
			}
		}).Protocol())
		if err != nil {
			t.Fatal(err)
		}
		server := &ear{send: noise(20_000), keepOpen: true, then: func(t weir.Transport) { _ = t.WriteEOF() }}
		w.listen(t, func(weir.Transport) weir.Protocol {
			if server.made > 0 {
				return nil // a forged SYN made one already
			}
			return server
		})
		dialer := &ear{send: noise(30_000), keepOpen: true, then: func(t weir.Transport) { _ = t.WriteEOF() }}
		w.b.Dial(middle, dialer)
		for s.Now() < 6*time.Hour && !dialer.over() && s.Step() {
		}
		_ = s.RunFor(2 * time.Hour)
		if !dialer.over() || server.made > server.lost {
			t.Fatalf("not over: %v, server made %d lost %d", dialer.over(), server.made, server.lost)
		}
		w.atRest(t)
		if !honest {
			return
		}
		if dialer.failed != nil || dialer.err != nil || server.err != nil {
			t.Fatalf("failed: %v %v %v", dialer.failed, dialer.err, server.err)
		}
		if !bytes.Equal(server.got, dialer.send) || !bytes.Equal(dialer.got, server.send) {
			t.Fatalf("server got %d bytes, client %d", len(server.got), len(dialer.got))
		}
	})
}
