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
func (h *peer) last() (seq, ack uint16) {
	h.t.Helper()
	if len(h.got) == 0 {
		h.t.Fatal("nothing came")
	}
	p := h.got[len(h.got)-1]
	return binary.BigEndian.Uint16(p[16:]), binary.BigEndian.Uint16(p[18:])
}

// TestForgedConfirmation: who forges an address cannot see our answer, and does not make up
// for it by many guesses of what it acknowledges: one in some 32,000 is right.
func TestForgedConfirmation(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{})
	server := &ear{}
	w.listen(t, func(weir.Transport) weir.Protocol { return server })
	h := newPeer(t, s, w.to)
	h.send(wire(wSyn, 100, 1<<20, 1, 0))
	s.Until("the answer", func() bool { return len(h.got) > 0 })
	seq, _ := h.last()
	for ack := range 1 << 16 {
		if back := seq - 1 - uint16(ack); back <= 1 {
			continue // the two that are right
		}
		h.send(wire(wData, 101, 1<<20, 2, uint16(ack), 'x'))
		if ack%64 == 0 {
			_ = s.RunFor(time.Millisecond)
		}
	}
	if server.made > 0 {
		t.Error("a forged packet made a connection")
	}
	h.send(wire(wData, 101, 1<<20, 2, seq-1, 'x'))
	s.Until("the connection", func() bool { return len(server.got) == 1 })
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
	seq, _ := h.last()
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
	if n := w.a.Counts().Implausible; n < 65_000 {
		t.Errorf("%d of the forged resets were counted", n)
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
	seq, _ := h.last()
	h.send(wire(wData, 101, 1<<20, 2, seq-1, 'a'))
	s.Until("the connection", func() bool { return len(server.got) == 1 })
	for _, ack := range []uint16{seq, seq + 1, seq + 100, seq + 1<<15, seq - 3000} {
		h.send(wire(wData, 101, 1<<20, 3, ack, 'b'))
	}
	_ = s.RunFor(time.Second)
	if n := w.a.Counts().Implausible; string(server.got) != "a" || n != 5 {
		t.Errorf("got %q, and counted %d", server.got, n)
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
	// Each that gave way is counted, and all are reported, a few times.
	reported := 0
	for _, err := range s.Failures {
		var refused *weir.AdmissionError
		if !errors.As(err, &refused) || !errors.Is(err, utp.ErrUnconfirmed) {
			t.Fatal(err)
		}
		reported += refused.Count
	}
	if n := w.a.Counts().Forgotten; n < 500 || reported != n || len(s.Failures) > 4 {
		t.Errorf("%d gave way, of which %d were reported in %d errors", n, reported, len(s.Failures))
	}
}

// TestUnanswered: packets of no connection are answered with so many resets a second,
// and the rest is counted.
func TestUnanswered(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{})
	h := newPeer(t, s, w.to)
	for i := range uint16(1000) {
		h.send(wire(wData, i, 1<<20, 1, 0, 'x'))
		if i%100 == 99 {
			_ = s.RunFor(time.Millisecond)
		}
	}
	if n := w.a.Counts().Unanswered; len(h.got)+n != 1000 || len(h.got) < 100 || len(h.got) > 110 {
		t.Errorf("%d of 1000 were answered, and %d were not", len(h.got), n)
	}
}

// TestEndlessExtensions: datagrams that are one chain of extensions, as long as a
// datagram can be, are another protocol's: they are read no further than the bound, and
// the connection whose id they have goes on.
func TestEndlessExtensions(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	others := 0
	w := newWorld(t, s, utp.Config{Other: func([]byte, weir.PacketAddr) { others++ }})
	server := &ear{}
	w.listen(t, func(weir.Transport) weir.Protocol { return server })
	h := newPeer(t, s, w.to)
	h.send(wire(wSyn, 100, 1<<20, 1, 0))
	s.Until("the answer", func() bool { return len(h.got) > 0 })
	seq, _ := h.last()
	h.send(wire(wData, 101, 1<<20, 2, seq-1, 'a'))
	s.Until("the connection", func() bool { return len(server.got) == 1 })
	last := []byte{0, 0} // ends a chain
	for _, ext := range [][]byte{
		bytes.Repeat([]byte{2, 0}, 32_000), // of unknown ones without a body, to the end
		append(bytes.Repeat([]byte{2, 0}, 32_000), last...),
		append(bytes.Repeat([]byte{1, 4, 255, 255, 255, 255}, 10_000), last...), // of selective acknowledgements
		append(bytes.Repeat(append([]byte{1, 255}, make([]byte, 255)...), 200), last...),
		{1, 255}, // of one that passes the end
	} {
		for _, kind := range []byte{wData, wFin, wState, wReset, wSyn} {
			b := wire(kind, 101, 1<<20, 3, seq-1)
			b[1] = 1
			h.send(append(b, ext...))
			_ = s.RunFor(10 * time.Millisecond)
		}
	}
	if others != 25 || server.lost > 0 || string(server.got) != "a" {
		t.Errorf("%d of 25 were taken for another protocol's; lost %d, got %q", others, server.lost, server.got)
	}
	h.send(wire(wData, 101, 1<<20, 3, seq-1, 'b'))
	s.Until("what came after", func() bool { return string(server.got) == "ab" })
}

// TestForgedSyn: a SYN with the id of a connection that is open changes nothing,
// whatever its number, and is not answered unless the number is the right one.
func TestForgedSyn(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	w := newWorld(t, s, utp.Config{})
	made := 0
	server := &ear{}
	w.listen(t, func(weir.Transport) weir.Protocol { made++; return server })
	h := newPeer(t, s, w.to)
	h.send(wire(wSyn, 100, 1<<20, 1, 0))
	s.Until("the answer", func() bool { return len(h.got) > 0 })
	seq, _ := h.last()
	h.send(wire(wData, 101, 1<<20, 2, seq-1, 'a'))
	s.Until("the connection", func() bool { return len(server.got) == 1 })
	_ = s.RunFor(time.Second)
	before := len(h.got)
	for number := range uint16(1000) {
		if number != 1 {
			h.send(wire(wSyn, 100, 1<<20, number, 0))
		}
	}
	_ = s.RunFor(time.Second)
	if len(h.got) != before {
		t.Errorf("%d answers to forged SYNs", len(h.got)-before)
	}
	h.send(wire(wData, 101, 1<<20, 3, seq-1, 'b'))
	s.Until("what came after", func() bool { return string(server.got) == "ab" })
	if made != 1 || w.a.Connections() != 1 || server.lost > 0 {
		t.Errorf("%d protocols, %d connections, lost %d", made, w.a.Connections(), server.lost)
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
		if made != 3 || refused != 2 || w.a.Counts().Refused != 2 {
			t.Errorf("%+v: %d made, %d refused, %+v counted", cfg, made, refused, w.a.Counts())
		}
		var limit *utp.LimitError
		if len(s.Failures) == 0 || !errors.As(s.Failures[0], &limit) || limit.Limit != 3 || limit.Addr.IsValid() != (cfg.PerAddress > 0) {
			t.Errorf("reported %v", s.Failures)
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
		seq, _ := h.last()
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
	weir.NopProtocol
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

// model is a peer made by hand, and what it may expect of a connection.
type model struct {
	*peer
	first  uint16 // the number of the connection's first packet
	sent   [modelEnd + 1]bool
	next   int  // of the packets sent, how many there are before one that is missing
	reset  bool // a reset was sent that is to be believed
	heard  map[uint16][]byte
	wrote  int // bytes that the connection's protocol wrote
	acking uint16
}

const (
	modelSyn = 65530 // the numbers wrap
	modelEnd = 40    // the FIN is the packet after so many
)

func (m *model) data(k int, ack uint16) []byte {
	kind := byte(wData)
	data := []byte{byte(k), byte(k), byte(k)}
	if k == modelEnd {
		kind, data = wFin, nil
	}
	return wire(kind, 101, 1<<20, uint16(modelSyn+1+k), ack, data...)
}

// step sends what one byte of the script says.
func (m *model) step(op byte, server *ear) {
	acks := m.first - 1 + m.acking
	switch k := int(op) % (modelEnd + 8); k {
	default: // a packet, or the end
		m.send(m.data(k, acks))
		m.sent[k] = m.sent[k] || !m.reset
	case modelEnd + 1:
		m.send(wire(wSyn, 100, 1<<20, modelSyn, 0)) // ours, again
	case modelEnd + 2:
		m.send(wire(wSyn, 100, 1<<20, modelSyn+uint16(op), 0)) // a forged one
	case modelEnd + 3:
		m.send(wire(wReset, 101, 0, 0, acks+1000+uint16(op))) // a forged one
	case modelEnd + 4:
		m.send(m.data(m.next, acks+1000)) // it acknowledges what was never sent
	case modelEnd + 5:
		server.t.Loop().Soon(func() {
			n, _ := server.t.Write(noise(m.wrote + 100)[m.wrote:])
			m.wrote += n
		})
	case modelEnd + 6:
		m.acknowledge()
	case modelEnd + 7:
		m.send(wire(wReset, 101, 0, 0, acks))
		m.reset = true
	}
}

// acknowledge acknowledges everything that has come in order.
func (m *model) acknowledge() {
	for m.heard[m.first+m.acking] != nil {
		m.acking++
	}
	m.send(wire(wState, 101, 1<<20, uint16(modelSyn+1+m.next), m.first-1+m.acking))
}

// got is what has come in order.
func (m *model) got() (all []byte) {
	for k := m.first; m.heard[k] != nil; k++ {
		all = append(all, m.heard[k]...)
	}
	return all
}

// check compares what the connection's protocol has heard with what it must have.
func (m *model) check(t *testing.T, server *ear) {
	t.Helper()
	for m.next <= modelEnd && m.sent[m.next] {
		m.next++
	}
	var want []byte
	for k := range min(m.next, modelEnd) {
		want = append(want, byte(k), byte(k), byte(k))
	}
	ends, lost := 0, 0
	if m.next > modelEnd {
		ends = 1
	}
	if m.reset {
		lost = 1
	}
	if !bytes.Equal(server.got, want) || server.ends != ends || server.lost != lost {
		t.Fatalf("got % x, %d ends, lost %d times; want % x, %d, %d", server.got, server.ends, server.lost, want, ends, lost)
	}
	if m.reset && !errors.Is(server.err, syscall.ECONNRESET) {
		t.Fatal("lost with", server.err)
	}
}

// FuzzModel: the states of a connection against a model. Each byte of the script is a
// packet of its peer: one of 40 with bytes, in whatever order and how often, the end, the
// SYN again, a forged SYN, reset or acknowledgement, a real acknowledgement or reset; or
// its protocol writes. What the protocol gets is the packets up to the first that is
// missing, and the end after the last of them; so says the ack; a reset ends it, and
// nothing forged does. What it wrote arrives.
func FuzzModel(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3})
	f.Add([]byte{3, 2, 1, 0, 39, 5, 4, 45, 46, 40})
	f.Add([]byte{0, 0, 2, 2, 1, 200, 130, 41, 42, 43, 44, 3})
	f.Add([]byte{40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 45, 45, 43})
	f.Add([]byte{45, 45, 45, 46, 45, 46, 0, 47, 1, 45})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 500 {
			return
		}
		s := weirtest.NewSim(t, 1)
		w := newWorld(t, s, utp.Config{})
		server := &ear{keepOpen: true}
		w.listen(t, func(weir.Transport) weir.Protocol { return server })
		m := &model{peer: newPeer(t, s, w.to), heard: map[uint16][]byte{}}
		m.send(wire(wSyn, 100, 1<<20, modelSyn, 0))
		s.Until("the answer", func() bool { return len(m.peer.got) > 0 })
		m.first, _ = m.last()
		m.hear = func(p []byte) {
			if number := binary.BigEndian.Uint16(p[16:]); p[0]>>4 == wData && number-m.first < 1<<15 {
				if old := m.heard[number]; old != nil && !bytes.Equal(old, p[20:]) {
					t.Errorf("packet %d changed", number-m.first)
				}
				m.heard[number] = bytes.Clone(p[20:])
			}
		}
		m.send(wire(wState, 101, 1<<20, modelSyn+1, m.first-1))
		_ = s.RunFor(10 * time.Millisecond)
		for _, op := range script {
			m.step(op, server)
			_ = s.RunFor(3 * time.Millisecond)
			m.check(t, server)
		}
		if m.reset {
			_ = s.RunFor(time.Minute)
			w.atRest(t)
			return
		}
		for range 100 {
			m.acknowledge()
			_ = s.RunFor(100 * time.Millisecond) // the acknowledgement that waits, too
		}
		if !bytes.Equal(m.got(), noise(m.wrote)) {
			t.Fatalf("%d of %d written bytes came", len(m.got()), m.wrote)
		}
		m.send(m.data(0, m.first-1+m.acking))
		m.sent[0] = true
		_ = s.RunFor(time.Second)
		m.check(t, server)
		if _, ack := m.last(); ack != uint16(modelSyn+m.next) {
			t.Fatalf("acknowledged %d, want %d", ack, uint16(modelSyn+m.next))
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
