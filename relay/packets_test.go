package relay_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// box is a packet protocol that keeps what comes, or answers it.
type box struct {
	e      *weir.PacketEndpoint
	got    []string
	from   []weir.PacketAddr
	answer bool
}

func (b *box) EndpointMade(e *weir.PacketEndpoint) { b.e = e }
func (b *box) EndpointLost(error)                  {}
func (b *box) PacketReceived(p []byte, from weir.PacketAddr) {
	b.got, b.from = append(b.got, string(p)), append(b.from, from)
	if b.answer {
		_ = b.e.SendTo(append([]byte("re:"), p...), from)
	}
}

// TestPackets: each peer's datagrams reach the target from an address of their
// own, the answers come back to whom they are for, edges are kept, the idle are
// forgotten.
func TestPackets(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			var troubles []error
			l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithErrorHandler(func(err error) { t.Error(err) }))
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			until := func(what string, cond func() bool) {
				t.Helper()
				weirtest.Until(t, l, what, cond)
			}
			open := func(b *box) *weir.PacketEndpoint {
				t.Helper()
				e, err := l.ListenPacket("udp4", "127.0.0.1:0", b)
				if err != nil {
					t.Fatal(err)
				}
				b.e = e
				return e
			}
			target := &box{answer: true}
			open(target)
			var ended []relay.PacketCount
			var short []relay.PacketShortage
			began, lost := 0, 0
			const idle = 2 * time.Second // much more than what comes before takes
			r, err := relay.NewPackets(l, "udp4", "127.0.0.1:0", relay.PacketConfig{
				Target: target.e.Local(), Idle: idle, Most: 3,
				Began:   func(weir.PacketAddr, string) { began++ },
				Ended:   func(_ weir.PacketAddr, _ string, c relay.PacketCount) { ended = append(ended, c) },
				Full:    func(s relay.PacketShortage) { short = append(short, s) },
				Trouble: func(err error, _ weir.PacketAddr) { troubles = append(troubles, err) },
				Lost: func(err error) {
					if lost++; err != nil {
						t.Error(err)
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			at := r.Local()
			var clients []*box
			for i := range 3 {
				c := &box{}
				open(c)
				clients = append(clients, c)
				for _, s := range []string{"one", "", "three"} {
					if err := c.e.SendTo(fmt.Appendf(nil, "%d %s", i, s), at); err != nil {
						t.Fatal(err)
					}
				}
			}
			until("answers", func() bool {
				return len(clients[0].got)+len(clients[1].got)+len(clients[2].got) == 9
			})
			seen := map[weir.PacketAddr]bool{}
			for _, from := range target.from {
				seen[from] = true
			}
			if len(seen) != 3 || began != 3 || r.Peers() != 3 {
				t.Errorf("the target saw %v, %d began", seen, began)
			}
			for i, c := range clients {
				want := fmt.Sprintf("[re:%d one re:%d  re:%d three]", i, i, i)
				if got := fmt.Sprint(c.got); got != want || c.from[0] != at {
					t.Errorf("client %d got %s from %v", i, got, c.from[0])
				}
			}
			fourth := &box{}
			open(fourth)
			if err := fourth.e.SendTo([]byte("x"), at); err != nil {
				t.Fatal(err)
			}
			// It takes the place of the one that has been idle for longest, which is told.
			until("the fourth's answer", func() bool { return len(fourth.got) == 1 })
			if len(short) != 1 || short[0].Evicted != 1 || r.Peers() != 3 || len(ended) != 1 || began != 4 {
				t.Errorf("%+v, %d peers, %d ended, %d began", short, r.Peers(), len(ended), began)
			}
			// What somebody else sends to a peer's endpoint is not the target's.
			for from := range seen {
				if err := fourth.e.SendTo([]byte("forged"), from); err != nil {
					t.Fatal(err)
				}
			}
			until("the idle to be forgotten", func() bool { return r.Peers() == 0 })
			for _, c := range clients {
				if len(c.got) != 3 {
					t.Errorf("a client got %v", c.got)
				}
			}
			total := r.Total()
			if len(ended) != 4 || total.Packets != [2]int64{10, 10} || total.Bytes[relay.B] != total.Bytes[relay.A]+30 || ended[3].Took < idle {
				t.Errorf("ended %+v, in all %+v", ended, total)
			}
			if len(troubles) != 0 {
				t.Errorf("troubles: %v", troubles)
			}
			r.Close()
			until("the end", func() bool { return lost == 1 })
		})
	}
}

// TestPacketsUnread: what the system drops because datagrams come faster than the relay takes
// them is counted, of each side, and said (R50).
func TestPacketsUnread(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithErrorHandler(func(err error) { t.Error(err) }))
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			if !l.Backend().Packets.Dropped {
				t.Skip("the backend does not tell")
			}
			target, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			var short []relay.PacketShortage
			small := []weir.PacketOption{weir.WithSocketBuffers(0, 4096)}
			r, err := relay.NewPackets(l, "udp4", "127.0.0.1:0", relay.PacketConfig{
				Target: weir.PacketAddr{IP: target.LocalAddr().(*net.UDPAddr).AddrPort()}, Options: small, UpOptions: small,
				Full: func(s relay.PacketShortage) { short = append(short, s) },
			})
			if err != nil {
				t.Fatal(err)
			}
			client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(r.Local().IP))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			const many = 3000 // more than the portable backend reads ahead
			// flood sends many datagrams while the loop does not run, and then others until
			// all are accounted for.
			flood := func(s relay.Side, send func() error) {
				t.Helper()
				before := r.Total().Received[s]
				sent := int64(0)
				one := func() {
					t.Helper()
					if err := send(); err != nil {
						t.Fatal(err)
					}
					sent++
				}
				for range many {
					one()
				}
				had := int64(-1)
				weirtest.Until(t, l, "a count of all", func() bool {
					got := r.Total().Received[s] - before
					if got == sent && r.Total().Lost[s].Unread > 0 {
						return true
					}
					if got == had { // the next one says how many were dropped before it
						one()
					}
					had = got
					return false
				})
			}
			flood(relay.A, func() error { _, err := client.Write(make([]byte, 100)); return err })
			_, from, err := target.ReadFromUDPAddrPort(make([]byte, 200))
			if err != nil {
				t.Fatal(err)
			}
			flood(relay.B, func() error { _, err := target.WriteToUDPAddrPort(make([]byte, 100), from); return err })
			total := r.Total()
			r.Close()
			said := int64(0)
			for _, s := range short {
				said += s.Unread
			}
			if want := total.Lost[relay.A].Unread + total.Lost[relay.B].Unread; said != want || total.Dropped() < want {
				t.Errorf("%d unread were said, of %d; %+v", said, want, total)
			}
			for s, n := range total.Received {
				if n != total.Packets[s]+total.Lost[s].Sum() {
					t.Errorf("side %d: %+v", s, total)
				}
			}
		})
	}
}

// TestPacketsTrouble: a target that refuses is told of, and the relay goes on; a
// peer that is gone is forgotten.
func TestPacketsTrouble(t *testing.T) {
	l, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { t.Error(err) }))
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if l.Backend().Name == "portable" {
		t.Skip("package net does not report refusals")
	}
	until := func(what string, cond func() bool) {
		t.Helper()
		weirtest.Until(t, l, what, cond)
	}
	target, client := &box{}, &box{}
	te, err := l.ListenPacket("udp4", "127.0.0.1:0", target)
	if err != nil {
		t.Fatal(err)
	}
	ce, err := l.ListenPacket("udp4", "127.0.0.1:0", client)
	if err != nil {
		t.Fatal(err)
	}
	var troubles []error
	r, err := relay.NewPackets(l, "udp4", "127.0.0.1:0", relay.PacketConfig{
		Target: te.Local(), Trouble: func(err error, to weir.PacketAddr) {
			if to != te.Local() {
				t.Errorf("trouble about %v", to)
			}
			troubles = append(troubles, err)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	at := r.Local()
	if err := ce.SendTo(bytes.Repeat([]byte("x"), 1000), at); err != nil {
		t.Fatal(err)
	}
	until("it", func() bool { return len(target.got) == 1 })
	up := target.from[0]
	// The client goes; what the target sends then is refused, and the peer with it.
	ce.Abort()
	if err := l.Turn(0); err != nil {
		t.Fatal(err)
	}
	if err := te.SendTo([]byte("late"), up); err != nil {
		t.Fatal(err)
	}
	until("the peer to be forgotten", func() bool { return r.Peers() == 0 })
	other := &box{}
	oe, err := l.ListenPacket("udp4", "127.0.0.1:0", other)
	if err != nil {
		t.Fatal(err)
	}
	te.Abort()
	if err := l.Turn(0); err != nil {
		t.Fatal(err)
	}
	if err := oe.SendTo([]byte("y"), at); err != nil {
		t.Fatal(err)
	}
	until("trouble", func() bool { return len(troubles) == 1 })
	if !errors.Is(troubles[0], syscall.ECONNREFUSED) || r.Peers() != 1 {
		t.Errorf("%v, %d peers", troubles, r.Peers())
	}
	if _, err := relay.NewPackets(l, "udp4", "127.0.0.1:0", relay.PacketConfig{}); err == nil {
		t.Error("no target, and no error")
	}
}
