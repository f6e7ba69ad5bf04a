package epoll

import (
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/backendtest"
)

// styles are the two that one flag chooses between; R2 demands that no code above can
// tell them apart.
var styles = []struct {
	name string
	edge bool
}{{"level", false}, {"edge", true}}

func TestContract(t *testing.T) {
	for _, style := range styles {
		t.Run(style.name, func(t *testing.T) {
			backendtest.Run(t, func(t *testing.T) backend.Backend { return open(t, style.edge) })
		})
	}
}

func open(t testing.TB, edge bool) *Backend {
	t.Helper()
	b, err := New(edge)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
