package ws_test

import (
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
	"github.com/weir-io/weir/weirtest"
)

// TestSteady: bytes through a WebSocket on both ends cost no allocation once
// traffic is steady (R6), compressed or not, on backends that do not allocate
// themselves.
func TestSteady(t *testing.T) {
	if race.Enabled {
		t.Skip("crypto/rand and compress allocate then: a sync.Pool drops what it holds")
	}
	for _, backend := range weir.Backends() {
		if backend == "portable" {
			continue // package net allocates
		}
		for name, cfg := range map[string]ws.Config{"plain": {}, "compressed": {Compress: true}} {
			n := weirtest.LayerAllocs(t, backend,
				func(f weir.Factory) weir.Factory { return layer.Server(f, ws.Server(cfg)) },
				func(p weir.Protocol) weir.Protocol { return layer.Client(p, ws.Client(cfg)) })
			if n != 0 {
				t.Errorf("%s, %s: %v allocations a message", backend, name, n)
			}
		}
	}
}
