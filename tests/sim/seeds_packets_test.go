package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
)

// packetPeer is a protocol of the datagram scenario, on either side. It checks what every
// endpoint promises: EndpointMade once, EndpointLost once and last, pauses that
// alternate, bounds, and nothing received that was not sent.
type packetPeer struct {
	s         *seedRun
	name      string
	e         *weir.PacketEndpoint
	echoes    bool
	sent      uint32
	seen      map[uint32]int
	paused    bool
	made      int
	lost      int
	last      uint32 // the newest that was received
	truncated int
	failed    int
	tooLong   int  // that were sent, or failed later
	whole     bool // datagrams are not cut up on their way
	sizes     uint // the number of datagrams in a row that have one size, as a power of 2
	ordered   bool // nothing in this world has datagrams overtake each other
	newest    uint32
}

const packetCopies = 4 // of a datagram that is answered: each way may double it

// bytes is the datagram of a number: what it says, it says in all its length.
func (p *packetPeer) bytes(n uint32) []byte {
	k := n >> p.sizes
	return append(binary.BigEndian.AppendUint32(nil, n), bytes.Repeat([]byte{byte(n)}, int(k*k%1500))...)
}

func (p *packetPeer) alive(where string) {
	if p.made != 1 || p.lost != 0 {
		p.s.bad("%s: %s after %d EndpointMade and %d EndpointLost (G1)", p.name, where, p.made, p.lost)
	}
}

func (p *packetPeer) EndpointMade(*weir.PacketEndpoint) {
	p.made++
	p.alive("EndpointMade")
}

func (p *packetPeer) PacketReceived(b []byte, from weir.PacketAddr) {
	p.alive("PacketReceived")
	if len(b) < 4 {
		p.s.bad("%s: a datagram of %d bytes, which no one sent (G2)", p.name, len(b))
		return
	}
	n := binary.BigEndian.Uint32(b)
	p.last = n
	if p.seen[n]++; p.seen[n] > packetCopies {
		p.s.bad("%s: datagram %d came %d times (G2)", p.name, n, p.seen[n])
	}
	if p.ordered && n < p.newest {
		p.s.bad("%s: datagram %d came after %d", p.name, n, p.newest)
	}
	p.newest = n
	if !bytes.Equal(b, p.bytes(n)) {
		p.s.bad("%s: datagram %d has %d bytes, and not those that were sent (G2)", p.name, n, len(b))
	}
	if p.echoes {
		p.send(b, from)
	}
}

func (p *packetPeer) PacketTruncated(b []byte, _ weir.PacketAddr) {
	p.alive("PacketTruncated")
	p.truncated++
	if len(b) >= 4 && !bytes.HasPrefix(p.bytes(binary.BigEndian.Uint32(b)), b) {
		p.s.bad("%s: the beginning of a datagram is that of none (G2)", p.name)
	}
}

func (p *packetPeer) PacketFailed(err error, _ weir.PacketAddr) {
	p.alive("PacketFailed")
	p.failed++
	if err == nil {
		p.s.bad("%s: failed without a reason", p.name)
	}
	p.long(err)
}

// long counts what was longer than a link takes, which no one hears of who lets the network
// cut datagrams up.
func (p *packetPeer) long(err error) {
	var long *weir.MTUError
	if !errors.As(err, &long) {
		return
	}
	if p.tooLong++; !p.whole {
		p.s.bad("%s: %v, without WithDontFragment", p.name, err)
	}
}

func (p *packetPeer) PauseWriting() {
	if p.lost != 0 { // it may come before EndpointMade, as SendTo may
		p.s.bad("%s: PauseWriting after EndpointLost (G1)", p.name)
	}
	if p.paused {
		p.s.bad("%s: paused twice (G4)", p.name)
	}
	p.paused = true
}

func (p *packetPeer) ResumeWriting() {
	p.alive("ResumeWriting")
	if !p.paused {
		p.s.bad("%s: resumed twice (G4)", p.name)
	}
	p.paused = false
}

func (p *packetPeer) EndpointLost(err error) {
	p.alive("EndpointLost")
	p.lost++
	if err != nil {
		p.s.bad("%s: lost: %v", p.name, err)
	}
}

// The marks of the scenario's endpoints.
const packetHigh, packetLow = 3000, 1000

func (p *packetPeer) send(b []byte, to weir.PacketAddr) {
	err := p.e.SendTo(b, to)
	p.long(err)
	if p.s.healed && errors.Is(err, weir.ErrClosed) {
		p.s.bad("%s: closed: %v", p.name, err)
	}
	if n := p.e.Buffered(); n > 4*packetHigh {
		p.s.bad("%s: %d bytes are buffered (G3)", p.name, n)
	}
}

// open opens p's endpoint, again and again while the host is short of something.
func (p *packetPeer) open(l *weir.Loop, at string, then func()) {
	marks := weir.WithWriteMarks(packetHigh, packetLow)
	var (
		e   *weir.PacketEndpoint
		err error
	)
	if p.whole {
		e, err = l.ListenPacket("udp4", at, p, marks, weir.WithDontFragment())
	} else {
		e, err = l.ListenPacket("udp4", at, p, marks)
	}
	if err != nil {
		l.After(time.Second, func() { p.open(l, at, then) })
		return
	}
	p.e = e
	then()
}

// playPackets is one endpoint that sends numbered datagrams, many in some turns and with
// reading paused at times, and one that answers, while datagrams are lost, doubled,
// reordered, cut and refused, or too long for a link, and sends fail or wait.
func playPackets(s *seedRun) {
	server := &packetPeer{s: s, name: "server", echoes: true, seen: map[uint32]int{}}
	client := &packetPeer{s: s, name: "client", seen: map[uint32]int{}}
	to := weir.PacketAddr{IP: netip.MustParseAddrPort(s.sim.Host("server").Addr(7000))}
	client.whole = s.r.IntN(2) == 0
	if s.r.IntN(2) == 0 { // as datagrams that are joined have it
		client.sizes, server.sizes = 5, 5
	}
	faults := s.sim.Faults()
	client.ordered = faults.Reorder == 0 && faults.Jitter == 0
	server.ordered = client.ordered
	next := func() {
		client.sent++
		client.send(client.bytes(client.sent), to)
	}
	server.open(s.server, to.IP.String(), func() {})
	client.open(s.client, "0.0.0.0:0", func() {
		rounds := 5 + s.r.IntN(40)
		var round func()
		round = func() {
			for range 1 + s.r.IntN(1<<s.r.IntN(7)) {
				next()
			}
			switch s.r.IntN(8) {
			case 0:
				client.e.PauseReading()
			case 1:
				client.e.ResumeReading()
			}
			if rounds--; rounds > 0 {
				s.client.After(time.Duration(s.r.Int64N(int64(100*time.Millisecond))), round)
			}
		}
		round()
	})
	s.finish = func() {
		if server.e == nil || client.e == nil {
			s.bad("an endpoint could not be opened after the faults (G10)")
			return
		}
		client.e.ResumeReading()
		for len(client.bytes(client.sent+1)) > 500 { // any link takes it
			client.sent++
		}
		s.client.Soon(next)
		if err := s.sim.Run(func() bool { return client.last == client.sent }); err != nil || client.last != client.sent {
			s.bad("after the faults a datagram is not answered: %v (G10)", err)
		}
		if n := server.e.Buffered() + client.e.Buffered(); n != 0 || server.paused || client.paused {
			s.bad("at rest %d bytes are buffered, paused %t, %t (G6)", n, server.paused, client.paused)
		}
		s.answered = len(client.seen)
		s.cut, s.refused = server.truncated+client.truncated, server.failed+client.failed
		s.tooLong = client.tooLong
		for n := range client.seen {
			if n == 0 || n > client.sent || server.seen[n] == 0 {
				s.bad("answer %d is to no question (G2)", n)
			}
		}
		for _, p := range []*packetPeer{server, client} {
			p.e.Loop().Soon(func() { _ = p.e.Close() })
		}
		if err := s.sim.Run(func() bool { return server.lost == 1 && client.lost == 1 }); err != nil {
			s.bad("an endpoint that was closed is not lost: %v (G1)", err)
		}
	}
}
