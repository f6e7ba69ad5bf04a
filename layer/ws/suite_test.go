package ws_test

import (
	"testing"
	"time"

	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/layer/ws"
)

// TestStreams: R41, behaviours 20 to 47 over a WebSocket, alone, compressed,
// and over another WebSocket.
func TestStreams(t *testing.T) {
	c := ws.Config{CloseTimeout: 300 * time.Millisecond}
	z := ws.Config{CloseTimeout: 300 * time.Millisecond, Compress: true}
	t.Run("one", func(t *testing.T) {
		t.Parallel()
		layertest.Suite(t, []layer.Layer{ws.Server(c)}, []layer.Layer{ws.Client(c)})
	})
	t.Run("compressed", func(t *testing.T) {
		t.Parallel()
		layertest.Suite(t, []layer.Layer{ws.Server(z)}, []layer.Layer{ws.Client(z)})
	})
	t.Run("three", func(t *testing.T) {
		t.Parallel()
		layertest.Suite(t, []layer.Layer{ws.Server(c), ws.Server(z), ws.Server(c)}, []layer.Layer{ws.Client(c), ws.Client(z), ws.Client(c)})
	})
}
