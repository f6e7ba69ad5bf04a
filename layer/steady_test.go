package layer_test

import (
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// TestSteady: a message through one layer, and through three, costs no
// allocation, on every backend that does not allocate itself (R6).
func TestSteady(t *testing.T) {
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // package net allocates
		}
		for what, stack := range map[string][]layer.Layer{"one": {layertest.Plain}, "three": {layertest.Plain, layertest.Plain, layertest.Plain}} {
			if n := layertest.Allocs(t, name, stack, stack); n != 0 {
				t.Errorf("%s, %s: %v allocations a message", name, what, n)
			}
		}
	}
}
