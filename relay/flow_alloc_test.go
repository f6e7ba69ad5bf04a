package relay_test

import (
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
