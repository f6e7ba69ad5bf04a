package layer_test

import (
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

// steady returns how many allocations a message costs, through layers on both
// ends, once traffic is steady.
func steady(t *testing.T, backend string, server, client []layer.Layer) float64 {
	t.Helper()
	return weirtest.LayerAllocs(t, backend,
		func(f weir.Factory) weir.Factory { return layer.Server(f, server...) },
		func(p weir.Protocol) weir.Protocol { return layer.Client(p, client...) })
}

// TestSteady: a message through one layer, and through three, costs no
// allocation, on every backend whose own cost is none (R6).
func TestSteady(t *testing.T) {
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // package net's own
		}
		for what, stack := range map[string][]layer.Layer{"one": {plain}, "three": {plain, plain, plain}} {
			if n := steady(t, name, stack, stack); n != 0 {
				t.Errorf("%s, %s: %v allocations a message", name, what, n)
			}
		}
	}
}
