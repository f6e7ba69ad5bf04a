package contract

import (
	"errors"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/packet"
)

// TestReadBuffer: an endpoint says how much the system keeps for it, in the measure of what
// was asked for, and less than that where there is a bound.
func TestReadBuffer(t *testing.T) {
	onEveryLoop(t, func(t *testing.T, mk loopMaker) {
		l := mk()
		p := &packets{}
		layers := []packet.Layer{packet.Fault(packet.FaultConfig{Seed: 1})}
		top, err := packet.Listen(l, "udp4", "127.0.0.1:0", p, layers, weir.WithSocketBuffers(0, 50_000))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := top.ReadBuffer(); err != nil || n != 50_000 {
			t.Errorf("%d bytes, %v", n, err)
		}
		if err := top.SetReadBuffer(30_000); err == nil {
			if n, err := top.ReadBuffer(); err != nil || n != 30_000 {
				t.Errorf("%d bytes, %v", n, err)
			}
		}
		top.Abort()
		if _, err := top.ReadBuffer(); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}
