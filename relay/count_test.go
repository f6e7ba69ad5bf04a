package relay_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// balanced checks that what was received was passed on or lost, and has the losses of A's
// datagrams and of B's.
func balanced(t *testing.T, what string, c relay.PacketCount, a, b relay.PacketLoss) {
	t.Helper()
	for s, want := range []relay.PacketLoss{a, b} {
		if c.Lost[s] != want || c.Received[s] != c.Packets[s]+c.Lost[s].Sum() {
			t.Errorf("%s, of side %d: %d received, %d passed on, lost %+v, want %+v", what, s, c.Received[s], c.Packets[s], c.Lost[s], want)
		}
	}
	for s, n := range c.Packets {
		if n == 0 && c.Bytes[s] != 0 {
			t.Errorf("%s: no datagram of side %d passed, and %d bytes", what, s, c.Bytes[s])
		}
	}
	if n := a.Sum() + b.Sum(); c.Dropped() != n {
		t.Errorf("%s: %d dropped, want %d", what, c.Dropped(), n)
	}
}

// said sums up what Full and Dropped are told.
type said struct{ lost [2]relay.PacketLoss }

func (s *said) full(p relay.PacketShortage) {
	s.lost[relay.A].NoFlow += p.Refused
	s.lost[relay.A].Unread += p.Unread
}

func (s *said) dropped(lost [2]relay.PacketLoss) {
	for side := range lost {
		s.lost[side].Add(lost[side])
	}
}

// TestPacketsCounts: each datagram that was received was passed on or lost, for a reason
// that is told while the relay runs, also one that fails after it was handed over.
func TestPacketsCounts(t *testing.T) {
	three := weir.PacketAddr{IP: netip.AddrPortFrom(four3, 7)}
	var none relay.PacketLoss
	for _, c := range []struct {
		name   string
		config relay.PacketConfig
		run    func(r *flowRig, client *box)
		a, b   relay.PacketLoss
	}{
		{"the target refuses", relay.PacketConfig{Target: three}, func(r *flowRig, client *box) {
			for range 3 {
				r.send(client, "q")
				r.pass(time.Second)
			}
		}, relay.PacketLoss{Refused: 3}, none},
		{"no room for the second of a turn", relay.PacketConfig{Target: three}, func(r *flowRig, client *box) {
			r.box(r.server, "10.0.0.3:7", true)
			r.send(client, "q")
			r.send(client, "q")
			r.s.Fail(weirtest.SendToCall, 2, syscall.ENOBUFS)
			r.pass(time.Second)
		}, relay.PacketLoss{NoRoom: 1}, none},
		{"no room for the second answer of a turn", relay.PacketConfig{Target: three}, func(r *flowRig, client *box) {
			server := r.box(r.server, "10.0.0.3:7", false)
			r.send(client, "q")
			r.pass(time.Second)
			for range 2 {
				if err := server.e.SendTo([]byte("a"), server.from[0]); err != nil {
					r.t.Fatal(err)
				}
			}
			r.s.Fail(weirtest.SendToCall, 2, syscall.ENOBUFS)
			r.pass(time.Second)
		}, none, relay.PacketLoss{NoRoom: 1}},
		{"the peer is gone", relay.PacketConfig{Target: three}, func(r *flowRig, client *box) {
			r.box(r.server, "10.0.0.3:7", true)
			r.send(client, "q")
			client.e.Abort()
			r.pass(time.Second)
		}, none, relay.PacketLoss{Refused: 1}},
		{"a link takes no long ones", relay.PacketConfig{Target: three, UpOptions: []weir.PacketOption{weir.WithDontFragment()}}, func(r *flowRig, client *box) {
			r.box(r.server, "10.0.0.3:7", true)
			r.s.SetFaults(weirtest.Faults{Latency: time.Millisecond, MTU: 600})
			for range 2 {
				r.send(client, strings.Repeat("x", 1000))
				r.pass(time.Second)
			}
		}, relay.PacketLoss{TooLong: 2}, none},
		{"too long to be taken", relay.PacketConfig{
			Target: three, Options: []weir.PacketOption{weir.WithMaxDatagram(100)}, UpOptions: []weir.PacketOption{weir.WithMaxDatagram(50)},
		}, func(r *flowRig, client *box) {
			r.box(r.server, "10.0.0.3:7", true)
			r.send(client, "q")
			r.pass(time.Second)
			r.send(client, strings.Repeat("x", 101))
			r.send(client, strings.Repeat("x", 50))
			r.pass(time.Second)
		}, relay.PacketLoss{TooLong: 1}, relay.PacketLoss{TooLong: 1}},
		{"too many wait for a name, and it is not found", relay.PacketConfig{Targets: []string{"name.test:7"}}, func(r *flowRig, client *box) {
			r.names.err = errors.New("no such name")
			for range 10 {
				r.send(client, "q")
			}
			r.pass(time.Second)
		}, relay.PacketLoss{NoRoom: 2, NoTarget: 8}, none},
		{"no descriptor", relay.PacketConfig{Target: three}, func(r *flowRig, client *box) {
			r.s.Fail(weirtest.OpenCall, 1, syscall.EMFILE)
			r.send(client, "q")
			r.pass(time.Second)
		}, relay.PacketLoss{NoFlow: 1}, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ended relay.PacketCount
			c.config.Ended = func(_ weir.PacketAddr, _ string, n relay.PacketCount) { ended.Add(n) }
			var said said
			c.config.Full, c.config.Dropped = said.full, said.dropped
			r := newFlowRig(t, c.config)
			client := r.box(r.client, "10.0.0.1:0", false)
			c.run(r, client)
			balanced(t, "while it runs", r.relay.Total(), c.a, c.b)
			r.pass(11 * time.Second)
			if said.lost != [2]relay.PacketLoss{c.a, c.b} {
				t.Errorf("what is told of: %+v, want %+v and %+v", said.lost, c.a, c.b)
			}
			r.relay.Close()
			r.pass(time.Second)
			total := r.relay.Total()
			balanced(t, "at the end", total, c.a, c.b)
			if c.a.NoFlow+c.a.TooLong+c.b.TooLong == 0 && ended != total { // a flow's own are all
				t.Errorf("the flow has counted %+v, the relay %+v", ended, total)
			}
		})
	}
}

// TestPacketsDroppedPeriod: what is lost is told of at once at first, and then every ten seconds,
// with how much it was.
func TestPacketsDroppedPeriod(t *testing.T) {
	var at []time.Duration
	var lost []int64
	var r *flowRig
	r = newFlowRig(t, relay.PacketConfig{
		Target: weir.PacketAddr{IP: netip.AddrPortFrom(four3, 7)},
		Dropped: func(l [2]relay.PacketLoss) {
			at, lost = append(at, r.s.Now()), append(lost, l[relay.A].Refused)
			if l[relay.A].Refused != l[relay.A].Sum() || l[relay.B] != (relay.PacketLoss{}) {
				t.Errorf("lost %+v", l)
			}
		},
	})
	client := r.box(r.client, "10.0.0.1:0", false)
	for range 25 {
		r.send(client, "q")
		r.pass(time.Second)
	}
	if !slices.Equal(lost, []int64{1, 10, 10}) || at[0] > time.Second || at[1]-at[0] != 10*time.Second || at[2]-at[1] != 10*time.Second {
		t.Errorf("told of %v at %v", lost, at)
	}
	r.relay.Close()
	r.pass(20 * time.Second)
	if n := r.relay.Total().Lost[relay.A].Refused; len(lost) != 3 || n != 25 {
		t.Errorf("told of %v, %d lost in all", lost, n)
	}
}

// way is a relay.PacketPath that keeps what it is given.
type way struct {
	f      *relay.PacketFlow
	kept   int
	closed int
}

func (w *way) Send([]byte) error { w.kept++; return nil }

func (w *way) Close() {
	w.closed++
	for ; w.kept > 0; w.kept-- {
		w.f.Failing(weir.ErrClosed)
	}
}

// TestPacketsPathEnds: what a way still keeps when its flow ends is lost, and counted.
func TestPacketsPathEnds(t *testing.T) {
	w := &way{}
	var ended relay.PacketCount
	r := newFlowRig(t, relay.PacketConfig{
		Targets: []string{"name.test:7"}, Idle: time.Second,
		Path:  func(f *relay.PacketFlow) (relay.PacketPath, error) { w.f = f; return w, nil },
		Ended: func(_ weir.PacketAddr, _ string, c relay.PacketCount) { ended = c },
	})
	client := r.box(r.client, "10.0.0.1:0", false)
	r.send(client, "q")
	r.send(client, "q")
	r.pass(5 * time.Second)
	balanced(t, "the flow", ended, relay.PacketLoss{Ended: 2}, relay.PacketLoss{})
	if w.closed != 1 || len(r.troubles) != 0 {
		t.Errorf("closed %d times, troubles %v", w.closed, r.troubles)
	}
}

// TestPacketsPathFailsAtOnce: a way that fails while it is opened leaves nothing.
func TestPacketsPathFailsAtOnce(t *testing.T) {
	w, broken := &way{}, errors.New("broken")
	r := newFlowRig(t, relay.PacketConfig{
		Targets: []string{"name.test:7"}, Idle: time.Second,
		Path: func(f *relay.PacketFlow) (relay.PacketPath, error) { w.f = f; f.Failed(broken); return w, nil },
	})
	client := r.box(r.client, "10.0.0.1:0", false)
	for range 2 {
		r.send(client, "q")
		r.pass(100 * time.Millisecond)
	}
	if r.relay.Peers() != 0 || r.relay.Served() != 0 || w.closed != 2 || w.kept != 0 || len(r.troubles) != 2 {
		t.Errorf("%d peers, %d served, closed %d times, %d kept, troubles %v", r.relay.Peers(), r.relay.Served(), w.closed, w.kept, r.troubles)
	}
	balanced(t, "in all", r.relay.Total(), relay.PacketLoss{Failed: 2}, relay.PacketLoss{})
}

// TestPacketsCloseInside: Close from inside a callback leaves no endpoint.
func TestPacketsCloseInside(t *testing.T) {
	target := weir.PacketAddr{IP: netip.AddrPortFrom(four3, 7)}
	for _, where := range []string{"Began", "Pick", "Ended", "Full"} {
		t.Run(where, func(t *testing.T) {
			var r *flowRig
			armed := false
			end := func(now string) {
				if now == where && armed {
					r.relay.Close()
				}
			}
			r = newFlowRig(t, relay.PacketConfig{
				Targets: []string{target.IP.String(), target.IP.String()}, Most: 1,
				Began: func(weir.PacketAddr, string) { end("Began") },
				Ended: func(weir.PacketAddr, string, relay.PacketCount) { end("Ended") },
				Pick:  func(weir.PacketAddr) (int, func(error)) { end("Pick"); return 0, nil },
				Full:  func(relay.PacketShortage) { end("Full") },
			})
			r.box(r.server, "10.0.0.3:7", true)
			first := r.box(r.client, "10.0.0.1:0", false)
			r.ask(first)
			second := r.box(r.client, "10.0.0.1:0", false)
			armed = true
			r.send(second, "q")
			r.pass(time.Second)
			if r.lost != 1 || r.relay.Peers() != 0 {
				t.Errorf("lost %d times, %d peers", r.lost, r.relay.Peers())
			}
			balanced(t, "in all", r.relay.Total(), relay.PacketLoss{Ended: 1}, relay.PacketLoss{})
			// What is sent to the ports that the relay had is refused: all are closed.
			opened, shut := r.s.Calls(weirtest.OpenCall), r.s.Calls(weirtest.ShutCall)
			if opened-shut != 3 { // the server's and the clients'
				t.Errorf("%d sockets were opened, %d closed", opened, shut)
			}
		})
	}
}
