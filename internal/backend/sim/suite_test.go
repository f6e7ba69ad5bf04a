package sim_test

import (
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/backendtest"
	"github.com/weir-io/weir/internal/backend/sim"
)

// maker makes backends on one host of a world for each test.
func maker(cfg sim.Config) func(t *testing.T) backend.Backend {
	cfg.Foreign = true
	cfg.Faults.Loopback = -1 // as far as a program can see, a system's takes no time
	worlds := map[*testing.T]*sim.World{}
	return func(t *testing.T) backend.Backend {
		w := worlds[t]
		if w == nil {
			w = sim.New(1, cfg)
			worlds[t] = w
		}
		b, err := w.Host("a").Backend()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func TestContract(t *testing.T) {
	backendtest.Run(t, maker(sim.Config{}))
}

// TestContractUnderFaults runs the suite where a backend does what the contract
// allows and a calm one does not. Left out is what the suite's own ways of
// looking rule out: a loopback that takes time, reads and writes that are cut,
// reads that Submit finishes. The tests of whole worlds have those.
func TestContractUnderFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults sim.Faults
	}{
		{"no inline results", sim.Faults{NoInline: true, ReceiveBuffer: 16 << 10}},
		{"deferred", sim.Faults{Defer: 0.5}},
		{"early ends", sim.Faults{EarlyEnd: 0.3}},
		{"empty waits", sim.Faults{EmptyWait: 0.2}},
		{"shuffled", sim.Faults{Shuffle: true}},
		{"late cancels", sim.Faults{LateCancel: 0.7, LateBy: time.Millisecond}},
		{"joined", sim.Faults{Joined: 1}},
		{"joined at times", sim.Faults{Joined: 0.5, NoInline: true, EarlyEnd: 0.2}},
		{"all", sim.Faults{Defer: 0.2, EarlyEnd: 0.1, EmptyWait: 0.05, Shuffle: true, LateCancel: 0.3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			backendtest.Run(t, maker(sim.Config{Faults: c.faults}))
		})
	}
}
