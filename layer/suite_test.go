package layer_test

import (
	"flag"
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

// everywhere runs the stream suite over each layer on every backend, which takes
// a quarter of an hour, instead of on one; the plain layer and TLS always do.
var everywhere = flag.Bool("everywhere", false, "run the stream suite over each layer on every backend")

// suite runs what every stream promises over layers.
func suite(t *testing.T, server, client []layer.Layer) {
	t.Helper()
	where := weirtest.OneBackend
	if raceEnabled {
		// A layer has no goroutine that the plain one has not, but for TLS.
		where = weirtest.Simulated
	}
	if *everywhere {
		where = weirtest.Everywhere
	}
	suiteIn(t, where, server, client)
}

func suiteIn(t *testing.T, where weirtest.Where, server, client []layer.Layer) {
	t.Helper()
	if testing.Short() && where == weirtest.Everywhere {
		where = weirtest.OneBackend // CI forces each of them in turn
	}
	weirtest.TestLayers(t, where,
		func(f weir.Factory) weir.Factory { return layer.Server(f, server...) },
		func(p weir.Protocol) weir.Protocol { return layer.Client(p, client...) })
}

func TestPlain(t *testing.T) {
	t.Run("one", func(t *testing.T) { suiteIn(t, weirtest.Everywhere, []layer.Layer{plain}, []layer.Layer{plain}) })
	t.Run("server", func(t *testing.T) { suite(t, []layer.Layer{plain}, nil) })
	t.Run("three", func(t *testing.T) {
		suiteIn(t, weirtest.Everywhere, []layer.Layer{plain, plain, plain}, []layer.Layer{plain, plain, plain})
	})
}

// TestExampleBase: the example of a layer of one's own keeps what a stream
// promises.
func TestExampleBase(t *testing.T) {
	if raceEnabled {
		t.Skip("it has no goroutine that the plain layer has not")
	}
	suite(t, []layer.Layer{newROT13}, []layer.Layer{newROT13})
}
