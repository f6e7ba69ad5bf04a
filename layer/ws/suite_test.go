package ws_test

import (
	"flag"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
	"github.com/weir-io/weir/weirtest"
)

var everywhere = flag.Bool("everywhere", false, "run the stream suite over each layer on every backend")

// suite is what every stream promises, over layers.
func suite(t *testing.T, server, client []layer.Layer) {
	t.Helper()
	where := weirtest.OneBackend
	if raceEnabled {
		where = weirtest.Simulated // WebSocket has no goroutines, and masks slowly under the detector
	}
	if *everywhere {
		where = weirtest.Everywhere
	}
	weirtest.TestLayers(t, where,
		func(f weir.Factory) weir.Factory { return layer.Server(f, server...) },
		func(p weir.Protocol) weir.Protocol { return layer.Client(p, client...) })
}

// TestStreams: R41, behaviours 20 to 47 over WebSocket, alone, compressed and
// over another.
func TestStreams(t *testing.T) {
	c := ws.Config{CloseTimeout: 300 * time.Millisecond}
	z := ws.Config{CloseTimeout: 300 * time.Millisecond, Compress: true}
	t.Run("one", func(t *testing.T) {
		t.Parallel()
		suite(t, []layer.Layer{ws.Server(c)}, []layer.Layer{ws.Client(c)})
	})
	if raceEnabled {
		return // masking is slow under the detector: one layer of it has to do
	}
	t.Run("compressed", func(t *testing.T) {
		t.Parallel()
		suite(t, []layer.Layer{ws.Server(z)}, []layer.Layer{ws.Client(z)})
	})
	t.Run("three", func(t *testing.T) {
		t.Parallel()
		suite(t, []layer.Layer{ws.Server(c), ws.Server(z), ws.Server(c)}, []layer.Layer{ws.Client(c), ws.Client(z), ws.Client(c)})
	})
}
