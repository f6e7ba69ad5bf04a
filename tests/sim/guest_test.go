package sim

import (
	"bytes"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// guestFaults reorder, delay and cut everything but lose no connection.
var guestFaults = weirtest.Faults{
	Jitter: 5 * time.Millisecond, Loss: 0.02, CutWire: 0.1,
	Eager: 0.2, Defer: 0.2, CutRead: 0.2, CutWrite: 0.2, Again: 0.1, EarlyEnd: 0.1, EmptyWait: 0.1,
	Shuffle: true, LateCancel: 0.2, LateBy: time.Millisecond, Slow: 0.1, LoopStall: 0.05,
}

// guestPeer sends bytes, and counts what comes back.
type guestPeer struct {
	weir.NopProtocol
	may  func() bool // whether a callback may come now
	t    *testing.T
	tr   weir.Transport
	sent []byte
	got  bytes.Buffer
	lost bool
}

func (p *guestPeer) ConnectionMade(tr weir.Transport) {
	p.tr = tr
	_, _ = tr.Write(p.sent)
}

func (p *guestPeer) DataReceived(b []byte) (int, error) {
	if !p.may() {
		p.t.Error("DataReceived outside of a turn that the host made")
	}
	return p.got.Write(b)
}

func (p *guestPeer) ConnectionLost(error) { p.lost = true }

// TestGuests: loops that are guests of foreign loops get turns from those alone, among
// their own steps, in an order that the seed decides; and nothing is lost, with limits
// of any size and when the guest ends in the middle (R24, R66, R60).
func TestGuests(t *testing.T) {
	weirtest.Seeds(t, int(seedCount()), guests, weirtest.WithFaults(guestFaults))
}

func guests(t *testing.T, s *weirtest.Sim) {
	seed := int(s.Seed())
	server, client := s.Host("server"), s.Host("client")
	inTurn, steps, between, turnsMade, own := false, 0, 0, 0, false
	var foreign *weirtest.SimForeign
	foreign = client.Foreign(func() {
		if steps++; turnsMade > 0 {
			between++
		}
		if inTurn {
			t.Error("a step of the host's inside a turn")
		}
		if steps%8 == 1 {
			foreign.Post(func() {}) // its own work
		}
	})
	l := client.Loop()
	if seed%3 != 0 {
		if err := l.SetTurnLimit(weir.TurnLimit{Calls: 1 + seed%5}); err != nil {
			t.Fatal(err)
		}
	}
	stop, err := l.Guest(func(turn func()) {
		foreign.Post(func() {
			turnsMade++
			inTurn = true
			turn()
			inTurn = false
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	address := server.Addr(7000)
	if _, err := server.Loop().Listen("tcp", address, func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }); err != nil {
		t.Fatal(err)
	}
	var all []*guestPeer
	for i := range 1 + seed%4 {
		p := &guestPeer{may: func() bool { return inTurn || own }, t: t, sent: bytes.Repeat([]byte{byte('a' + i)}, 1+seed*977%200_000)}
		all = append(all, p)
		l.Connect("tcp", address, p)
	}
	ticks := 0
	tick := l.NewTimer(func() {
		if ticks++; !inTurn {
			t.Error("a timer outside of a turn that the host made")
		}
	})
	tick.Repeat(3 * time.Millisecond)
	s.Until("every echo", func() bool {
		for _, p := range all {
			if p.got.Len() < len(p.sent) {
				return false
			}
		}
		return ticks > 2
	})
	tick.Stop()
	for _, p := range all {
		if !bytes.Equal(p.got.Bytes(), p.sent) {
			t.Error("the bytes that came back are others")
		}
	}
	if turnsMade > 20 && (steps == 0 || between == 0) {
		t.Errorf("%d steps of the host's own, %d between %d turns", steps, between, turnsMade)
	}

	// Without its host the loop goes on by itself, and a turn that was posted does nothing.
	made := turnsMade
	stop()
	stop()
	ran := false
	l.Soon(func() { ran = true })
	own = true
	s.Until("a turn of its own", func() bool { return ran })
	if turnsMade > made+1 {
		t.Errorf("%d turns from the host after stop", turnsMade-made)
	}
	all[0].tr.Close()
	s.Until("the end", func() bool { return all[0].lost })
}

// TestGuestRepeats: a run with guests is the same for the same seed.
func TestGuestRepeats(t *testing.T) {
	hash := func(seed uint64) uint64 {
		s := weirtest.NewSim(t, seed, weirtest.WithFaults(guestFaults))
		guests(t, s)
		return s.TraceHash()
	}
	if a, b, c := hash(7), hash(7), hash(8); a != b || a == c {
		t.Errorf("seed 7 gave %x and %x, seed 8 %x", a, b, c)
	}
}
