package sim_test

import (
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/backendtest"
	"github.com/weir-io/weir/internal/backend/sim"
)

// maker makes backends on one host of a world for each test.
func maker(cfg sim.Config) func(t *testing.T) backend.Backend {
	cfg.Foreign = true
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
