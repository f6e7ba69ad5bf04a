package layer_test

import (
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

// plain is the layer that changes nothing.
func plain(a layer.Above) layer.Above {
	return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
		b := &layer.Base{}
		return b.Init(b, "plain", a)
	}}
}

// suite runs what every stream promises over layers: on each backend over TCP,
// and in the simulator.
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

func TestPlain(t *testing.T) {
	t.Run("one", func(t *testing.T) { t.Parallel(); suite(t, []layer.Layer{plain}, []layer.Layer{plain}) })
	t.Run("server", func(t *testing.T) { suite(t, []layer.Layer{plain}, nil) })
	t.Run("three", func(t *testing.T) {
		suite(t, []layer.Layer{plain, plain, plain}, []layer.Layer{plain, plain, plain})
	})
}
