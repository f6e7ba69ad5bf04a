package layer_test

import (
	"testing"

	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/weirtest"
)

func TestPlain(t *testing.T) {
	t.Run("one", func(t *testing.T) {
		layertest.SuiteIn(t, weirtest.Everywhere, []layer.Layer{layertest.Plain}, []layer.Layer{layertest.Plain})
	})
	t.Run("server", func(t *testing.T) { layertest.Suite(t, []layer.Layer{layertest.Plain}, nil) })
	t.Run("three", func(t *testing.T) {
		layertest.SuiteIn(t, weirtest.Everywhere, []layer.Layer{layertest.Plain, layertest.Plain, layertest.Plain}, []layer.Layer{layertest.Plain, layertest.Plain, layertest.Plain})
	})
}

// TestExampleBase: the example of a custom layer keeps what a stream promises.
func TestExampleBase(t *testing.T) {
	if race.Enabled {
		t.Skip("it has no goroutine that the plain layer has not")
	}
	layertest.Suite(t, []layer.Layer{newROT13}, []layer.Layer{newROT13})
}
