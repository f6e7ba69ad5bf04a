package ws_test

import (
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
	"github.com/weir-io/weir/weirtest"
)

// suite is what every stream promises, over layers.
func suite(t *testing.T, server, client []layer.Layer) {
	t.Helper()
	over := func(m weirtest.Maker) weirtest.Maker {
		return weirtest.Layered(m,
			func(f weir.Factory) weir.Factory { return layer.Server(f, server...) },
			func(p weir.Protocol) weir.Protocol { return layer.Client(p, client...) })
	}
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a case waits more than it works
			weirtest.TestStreams(t, over(weirtest.LoopStreams("tcp", weir.WithBackendName(name))))
		})
	}
	t.Run("sim", func(t *testing.T) {
		t.Parallel()
		weirtest.TestStreams(t, over(weirtest.SimStreams(1)))
	})
	t.Run("sim, cut", func(t *testing.T) {
		t.Parallel()
		weirtest.TestStreams(t, over(weirtest.SimStreams(2, weirtest.WithFaults(weirtest.Faults{CutRead: 0.2, CutWrite: 0.2, CutWire: 0.2, Defer: 0.2, Again: 0.2, Shuffle: true}))))
	})
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
	t.Run("compressed", func(t *testing.T) {
		t.Parallel()
		suite(t, []layer.Layer{ws.Server(z)}, []layer.Layer{ws.Client(z)})
	})
	t.Run("three", func(t *testing.T) {
		t.Parallel()
		suite(t, []layer.Layer{ws.Server(c), ws.Server(z), ws.Server(c)}, []layer.Layer{ws.Client(c), ws.Client(z), ws.Client(c)})
	})
}
