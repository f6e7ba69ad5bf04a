package contract

import (
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// TestStreams runs what stream transports promise on every backend that this
// machine has and every kind of stream (behaviours 20 to 47, R2).
func TestStreams(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			skipRefused(t, name)
			for _, network := range []string{"tcp", "unix", "pair"} {
				t.Run(network, func(t *testing.T) {
					if network != "tcp" && !unixSockets {
						t.Skip("no UNIX sockets")
					}
					weirtest.TestStreams(t, weirtest.LoopStreams(network, weir.WithBackendName(name)))
				})
			}
		})
	}
}
