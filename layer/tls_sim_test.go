package layer_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/weirtest"
)

// TestTLSSameSeedSameTrace: with Sim.TLS, which makes random numbers, clock and
// certificates repeatable, a simulated run with TLS repeats byte for byte,
// whatever GOMAXPROCS is (R60, R81, behaviour 94).
func TestTLSSameSeedSameTrace(t *testing.T) {
	hashes := map[uint64][]int{}
	for _, procs := range []int{1, 2, 2} {
		t.Run(fmt.Sprintf("%d processors", procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			sim := weirtest.NewSim(t, 3, weirtest.WithFaults(weirtest.Faults{CutRead: 0.2, CutWrite: 0.2, CutWire: 0.3, Defer: 0.2, Shuffle: true, Jitter: time.Millisecond}))
			server, client := sim.TLS(t)
			here, there := sim.Host("here"), sim.Host("there")
			s, c := layer.TLSServer(server), layer.TLS(client)
			var ears []*layertest.Ear
			serve := func(weir.Transport) weir.Protocol {
				e := &layertest.Ear{}
				e.OnData = func(p []byte) int { _, _ = e.Tr.Write(p); return len(p) }
				ears = append(ears, e)
				return e
			}
			if _, err := here.Loop().Listen("tcp", ":7000", layer.Server(serve, s)); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				e := &layertest.Ear{}
				e.OnMade = func(tr weir.Transport) { _, _ = tr.Write(make([]byte, 30_000)) }
				e.OnData = func(p []byte) int {
					if len(e.Got)+len(p) == 30_000 {
						_ = e.Tr.Close()
					}
					return len(p)
				}
				ears = append(ears, e)
				there.Loop().Connect("tcp", "here:7000", layer.Client(e, c))
			}
			sim.Until("all ends", func() bool {
				over := 0
				for _, e := range ears {
					if e.Over() && e.Err == nil && e.Failed == nil {
						over++
					}
				}
				return over == 10
			})
			hashes[sim.TraceHash()] = append(hashes[sim.TraceHash()], procs)
		})
	}
	if len(hashes) != 1 {
		t.Errorf("%d different traces: %v", len(hashes), hashes)
	}
}
