package utp_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/utp"
	"github.com/weir-io/weir/weirtest"
)

// chance is where a simulated endpoint draws from.
func chance(seed uint64) *rand.ChaCha8 {
	var b [32]byte
	for i := range 8 {
		b[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(b)
}

// loopStreams are connections over one endpoint for each end, on a real backend.
func loopStreams(backend string) weirtest.Maker {
	return func(t *testing.T) *weirtest.Streams {
		s := weirtest.LoopStreams("tcp", weir.WithBackendName(backend))(t)
		s.Connect = func(server weir.Factory, client weir.Protocol, opts ...weir.StreamOption) {
			t.Helper()
			// Small windows are full soon, so that a case which fills them does not take a
			// slow acknowledgement for the end of the room.
			cfg := utp.Config{Options: opts, SendWindow: 32 << 10, ReceiveWindow: 32 << 10}
			a, err := utp.Open(s.Server, "udp4", "127.0.0.1:0", cfg)
			if err != nil {
				t.Fatal(err)
			}
			b, err := utp.Open(s.Client, "udp4", "127.0.0.1:0", cfg)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Listen(server); err != nil {
				t.Fatal(err)
			}
			b.Dial(a.Packets().Local().IP, client)
		}
		return s
	}
}

// simStreams are connections between two simulated hosts.
func simStreams(seed uint64, f weirtest.Faults) weirtest.Maker {
	return func(t *testing.T) *weirtest.Streams {
		sim := weirtest.NewSim(t, seed, weirtest.WithFaults(f))
		a, b := sim.Host("server"), sim.Host("client")
		n := uint64(0)
		s := &weirtest.Streams{Server: a.Loop(), Client: b.Loop(), HalfClose: true, Reset: true}
		s.Until = func(done func() bool) bool {
			for end := sim.Now() + 4*time.Hour; !done(); {
				if sim.Now() > end || !sim.Step() {
					return done()
				}
			}
			return true
		}
		s.Connect = func(server weir.Factory, client weir.Protocol, opts ...weir.StreamOption) {
			t.Helper()
			n++
			cfg := utp.Config{Options: opts, Random: chance(seed*100 + n)}
			port := uint16(7000 + n)
			ln, err := utp.Listen(s.Server, "udp4", a.Addr(port), server, cfg)
			if err != nil {
				t.Fatal(err)
			}
			e, err := utp.Open(s.Client, "udp4", "0.0.0.0:0", cfg)
			if err != nil {
				t.Fatal(err)
			}
			_ = ln
			e.Dial(netip.MustParseAddrPort(a.Addr(port)), client)
		}
		return s
	}
}

// TestStreams: a connection keeps what every stream promises (R52, behaviours 20 to 47),
// on every backend.
func TestStreams(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			l, err := weir.NewLoop(weir.WithBackendName(name))
			if err != nil {
				t.Skip(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			runtime.Gosched()
			weirtest.TestStreams(t, loopStreams(name))
		})
	}
}

// TestStreamsSim: the same in the simulator, calm and over datagrams that are lost,
// doubled, reordered and late.
func TestStreamsSim(t *testing.T) {
	if race.Enabled {
		t.Skip("a simulated world has no races")
	}
	for _, c := range []struct {
		name   string
		faults weirtest.Faults
		seeds  uint64
	}{
		{"calm", weirtest.Faults{}, 1},
		{"contract", weirtest.Faults{Defer: 0.2, EarlyEnd: 0.2, EmptyWait: 0.1, Again: 0.2, LateCancel: 0.5, Shuffle: true}, 2},
		{"lossy", weirtest.Faults{Drop: 0.05, Duplicate: 0.05, Reorder: 0.05, Jitter: 5 * time.Millisecond}, 3},
	} {
		for seed := range c.seeds {
			t.Run(fmt.Sprint(c.name, " ", seed), func(t *testing.T) {
				weirtest.TestStreams(t, simStreams(seed+1, c.faults))
			})
		}
	}
}
