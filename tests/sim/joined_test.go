package sim

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// joinedPeer numbers what it sends, in runs of one size, and checks that all of it comes back:
// each datagram once, whole and in order. The one that echoes pauses at times.
type joinedPeer struct {
	t       *testing.T
	r       *rand.Rand
	e       *weir.PacketEndpoint
	echoes  bool
	sizes   []int // of what was sent
	got     int
	failed  []error
	stopped bool
}

// joinedBytes is datagram n, of a size.
func joinedBytes(n, size int) []byte {
	p := bytes.Repeat([]byte{byte(n)}, max(size, 4))
	binary.BigEndian.PutUint32(p, uint32(n))
	return p
}

func (p *joinedPeer) EndpointMade(e *weir.PacketEndpoint) { p.e = e }
func (p *joinedPeer) EndpointLost(error)                  {}
func (p *joinedPeer) PacketFailed(err error, _ weir.PacketAddr) {
	p.failed = append(p.failed, err)
}

func (p *joinedPeer) PacketReceived(b []byte, from weir.PacketAddr) {
	if p.stopped {
		p.t.Fatalf("datagram %d came while reading was paused", p.got)
	}
	if !p.echoes {
		if p.got == len(p.sizes) || !bytes.Equal(b, joinedBytes(p.got, p.sizes[p.got])) {
			p.t.Fatalf("the answer after %d has %d bytes, and not those that were sent next", p.got, len(b))
		}
		p.got++
		return
	}
	p.got++
	if err := p.e.SendTo(b, from); err != nil {
		p.failed = append(p.failed, err)
	}
	if p.r.IntN(50) == 0 {
		p.stopped = true
		p.e.PauseReading()
		p.e.Loop().After(time.Duration(p.r.IntN(int(20*time.Millisecond))), func() {
			p.stopped = false
			p.e.ResumeReading()
		})
	}
}

// joinedInfoPeer is a joinedPeer that is told more.
type joinedInfoPeer struct{ *joinedPeer }

func (p joinedInfoPeer) PacketInfoReceived(b []byte, from weir.PacketAddr, info *weir.PacketInfo) {
	if !info.Local.IsValid() {
		p.t.Fatal("no local address was told")
	}
	p.PacketReceived(b, from)
}

// TestJoined: datagrams that the system joins, received and sent, are those that were sent, in
// their order, and as many: with pauses amidst them, with sends that wait, to protocols that are
// told more of them or not, from endpoints with an address and without (R51, G2).
func TestJoined(t *testing.T) {
	sent, received, answered := 0, 0, 0
	for seed := uint64(1); seed <= 60; seed++ {
		r := rand.New(rand.NewPCG(seed, 0))
		f := weirtest.Faults{Joined: 1, ReceiveBuffer: 8 << 20, Shuffle: r.IntN(2) == 0, NoInline: r.IntN(4) == 0}
		if r.IntN(2) == 0 {
			f.Joined = 0.9
		}
		if r.IntN(2) == 0 {
			f.SendWait, f.Again, f.Defer, f.EarlyEnd = 0.1, 0.2, 0.2, 0.2
		}
		s := weirtest.NewSim(t, seed, weirtest.WithFaults(f))
		server := &joinedPeer{t: t, r: r, echoes: true}
		client := &joinedPeer{t: t, r: r}
		var p weir.PacketProtocol = server
		if r.IntN(2) == 0 {
			p = joinedInfoPeer{server}
		}
		at := s.Host("server").Addr(7000)
		if r.IntN(2) == 0 {
			at = "0.0.0.0:7000"
		}
		se, err := s.Host("server").Loop().ListenPacket("udp4", at, p)
		if err != nil {
			t.Fatal(err)
		}
		l := s.Host("client").Loop()
		ce, err := l.ConnectPacket("udp4", s.Host("server").Addr(7000), client)
		if err != nil {
			t.Fatal(err)
		}
		rounds := 10
		var round func()
		round = func() {
			for n := r.IntN(100); n > 0; {
				size := []int{4, 64, 1200, r.IntN(1400)}[r.IntN(4)]
				for range 1 + r.IntN(n) {
					b := joinedBytes(len(client.sizes), size)
					client.sizes = append(client.sizes, size)
					if err := ce.Send(b); err != nil {
						t.Fatalf("seed %d: %v", seed, err)
					}
					n--
				}
			}
			if rounds--; rounds > 0 {
				l.After(time.Duration(r.IntN(int(200*time.Millisecond))), round)
			}
		}
		l.Soon(round)
		if err := s.Run(nil); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if n := len(client.sizes); server.got != n || client.got != n || len(server.failed)+len(client.failed) > 0 {
			t.Fatalf("seed %d: %d sent, %d received, %d answers, %v, %v", seed, n, server.got, client.got, server.failed, client.failed)
		}
		if n := se.Buffered() + ce.Buffered(); n != 0 {
			t.Fatalf("seed %d: %d bytes are buffered at rest", seed, n)
		}
		sent += s.Calls(weirtest.SendToCall)
		received += s.Calls(weirtest.RecvFromCall)
		answered += client.got
	}
	t.Logf("%d datagrams, there and back: %d calls to send, %d to receive", 2*answered, sent, received)
	if sent > answered || received > answered {
		t.Errorf("%d datagrams took %d calls to send, %d to receive: they are not joined", 2*answered, sent, received)
	}
}
