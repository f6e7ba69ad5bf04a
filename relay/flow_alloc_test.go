package relay_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/relay"
)

// pinger sends each datagram back where it came from.
type pinger struct {
	e     *weir.PacketEndpoint
	count int
}

func (p *pinger) EndpointMade(e *weir.PacketEndpoint) { p.e = e }
func (p *pinger) EndpointLost(error)                  {}
func (p *pinger) PacketReceived(b []byte, from weir.PacketAddr) {
	p.count++
	_ = p.e.SendTo(b, from)
}

// burster sends back what has come at the end of the turn, all of it together, as a busy
// peer does.
type burster struct {
	pinger
	kept [][]byte
	from weir.PacketAddr
}

func (b *burster) PacketReceived(p []byte, from weir.PacketAddr) {
	b.count++
	n := len(b.kept)
	if n < cap(b.kept) { // with its memory of an earlier turn
		b.kept = b.kept[:n+1]
		b.kept[n] = append(b.kept[n][:0], p...)
	} else {
		b.kept = append(b.kept, append([]byte(nil), p...))
	}
	b.from = from
}

func (b *burster) flush() {
	for _, p := range b.kept {
		_ = b.e.SendTo(p, b.from)
	}
	b.kept = b.kept[:0]
}

// TestPacketsBusyAllocations: a busy flow, with many datagrams under way at a time both
// ways, costs no allocation either, short datagrams or long, on epoll and io_uring.
func TestPacketsBusyAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // its own cost is not none
		}
		for _, size := range []int{64, 1200} {
			t.Run(fmt.Sprint(name, "/", size), func(t *testing.T) {
				l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithErrorHandler(func(err error) { t.Error(err) }))
				if err != nil {
					t.Skip(err)
				}
				defer l.Close()
				server, client := &pinger{}, &burster{}
				se, err := l.ListenPacket("udp4", "127.0.0.1:0", server)
				if err != nil {
					t.Fatal(err)
				}
				r, err := relay.NewPackets(l, "udp4", "127.0.0.1:0", relay.PacketConfig{Target: se.Local()})
				if err != nil {
					t.Fatal(err)
				}
				ce, err := l.ListenPacket("udp4", "127.0.0.1:0", client)
				if err != nil {
					t.Fatal(err)
				}
				const burst = 48
				for range burst {
					if err := ce.SendTo(make([]byte, size), r.Local()); err != nil {
						t.Fatal(err)
					}
				}
				rounds := func(n int) {
					for want := client.count + n*burst; client.count < want; {
						if err := l.Turn(time.Second); err != nil {
							t.Fatal(err)
						}
						client.flush()
					}
				}
				rounds(50)
				before := r.Total()
				if n := testing.AllocsPerRun(20, func() { rounds(5) }); n != 0 {
					t.Errorf("%d datagrams there and back cost %v allocations", 5*burst, n)
				}
				total := r.Total()
				if n := total.Packets[relay.A] - before.Packets[relay.A]; n < 20*5*burst || total.Dropped() != 0 {
					t.Errorf("%d datagrams passed, %d dropped", n, total.Dropped())
				}
			})
		}
	}
}

// TestPacketsAllocations: a datagram through a flow costs no allocation, either way, with
// one target or with several, on every backend whose own cost is none.
func TestPacketsAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // its own cost is not none
		}
		for _, targets := range []int{1, 2} {
			t.Run(name, func(t *testing.T) {
				l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithErrorHandler(func(err error) { t.Error(err) }))
				if err != nil {
					t.Skip(err)
				}
				defer l.Close()
				server, client := &pinger{}, &pinger{}
				se, err := l.ListenPacket("udp4", "127.0.0.1:0", server)
				if err != nil {
					t.Fatal(err)
				}
				c := relay.PacketConfig{Targets: []string{se.LocalAddr().String(), se.LocalAddr().String()}[:targets]}
				if targets > 1 {
					c.Pick = func(weir.PacketAddr) (int, func(error)) { return 1, func(error) {} }
				}
				r, err := relay.NewPackets(l, "udp4", "0.0.0.0:0", c)
				if err != nil {
					t.Fatal(err)
				}
				ce, err := l.ListenPacket("udp4", "127.0.0.1:0", client)
				if err != nil {
					t.Fatal(err)
				}
				if err := ce.SendTo(make([]byte, 64), at("127.0.0.1", r.Local())); err != nil {
					t.Fatal(err)
				}
				turns := func(n int) {
					for want := client.count + n; client.count < want; {
						if err := l.Turn(time.Second); err != nil {
							t.Fatal(err)
						}
					}
				}
				turns(200)
				if n := testing.AllocsPerRun(20, func() { turns(10) }); n != 0 {
					t.Errorf("10 datagrams there and back cost %v allocations", n)
				}
				if n := r.Total().Dropped(); n != 0 {
					t.Errorf("%d dropped", n)
				}
			})
		}
	}
}
