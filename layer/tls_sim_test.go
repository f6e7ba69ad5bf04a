package layer_test

import (
	"crypto/tls"
	"fmt"
	"runtime"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

// TestTLSSameSeedSameTrace: with random numbers and a clock that repeat, a
// simulated run with TLS repeats byte for byte, whatever GOMAXPROCS is (R60,
// behaviour 94).
func TestTLSSameSeedSameTrace(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	at := time.Now()
	server.Time = func() time.Time { return at }
	client.Time = server.Time
	hashes := map[uint64][]int{}
	for _, procs := range []int{1, 2, 2} {
		t.Run(fmt.Sprintf("%d processors", procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			cryptotest.SetGlobalRandom(t, 7)
			sim := weirtest.NewSim(t, 3, weirtest.WithFaults(weirtest.Faults{CutRead: 0.2, CutWrite: 0.2, CutWire: 0.3, Defer: 0.2, Shuffle: true, Jitter: time.Millisecond}))
			here, there := sim.Host("here"), sim.Host("there")
			s, c := layer.TLSServer(server), layer.TLS(client)
			var ears []*ear
			serve := func(weir.Transport) weir.Protocol {
				e := &ear{}
				e.onData = func(p []byte) int { _, _ = e.tr.Write(p); return len(p) }
				ears = append(ears, e)
				return e
			}
			if _, err := here.Loop().Listen("tcp", ":7000", layer.Server(serve, s)); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				e := &ear{}
				e.onMade = func(tr weir.Transport) { _, _ = tr.Write(make([]byte, 30_000)) }
				e.onData = func(p []byte) int {
					if len(e.got)+len(p) == 30_000 {
						_ = e.tr.Close()
					}
					return len(p)
				}
				ears = append(ears, e)
				there.Loop().Connect("tcp", "here:7000", layer.Client(e, c))
			}
			sim.Until("all ends", func() bool {
				over := 0
				for _, e := range ears {
					if e.over() && e.err == nil && e.failed == nil {
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
