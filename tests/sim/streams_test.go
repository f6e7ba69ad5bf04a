package sim

import (
	"fmt"
	"testing"

	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/weirtest"
)

// TestStreamsSim runs the stream suite on the simulator, over TCP, socket pairs and pipes:
// calm, and with everything that a backend's contract allows at any time.
func TestStreamsSim(t *testing.T) {
	if race.Enabled {
		t.Skip("a simulated world has no races")
	}
	contract := weirtest.Faults{
		CutRead: 0.2, CutWrite: 0.2, CutWire: 0.2, Defer: 0.2, EarlyEnd: 0.2, EmptyWait: 0.1, Again: 0.2,
		LateCancel: 0.5, Shuffle: true,
	}
	completions := contract
	completions.NoInline, completions.LateBy = true, 1e6
	for _, c := range []struct {
		name   string
		faults weirtest.Faults
		seeds  uint64
	}{{"calm", weirtest.Faults{}, 1}, {"inline", contract, 3}, {"completions", completions, 3}} {
		for seed := range c.seeds {
			t.Run(fmt.Sprint(c.name, " ", seed), func(t *testing.T) {
				weirtest.TestStreams(t, weirtest.SimStreams(seed+1, weirtest.WithFaults(c.faults)))
			})
			t.Run(fmt.Sprint("pairs ", c.name, " ", seed), func(t *testing.T) {
				weirtest.TestStreams(t, weirtest.SimPairs(seed+1, weirtest.WithFaults(c.faults)))
			})
			t.Run(fmt.Sprint("pipes ", c.name, " ", seed), func(t *testing.T) {
				weirtest.TestStreams(t, weirtest.SimPipes(seed+1, weirtest.WithFaults(c.faults)))
			})
		}
	}
}
