package portable

import (
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/backendtest"
)

// TestContract runs the suite on both ports.
func TestContract(t *testing.T) {
	for _, blocking := range []bool{false, true} {
		name := "polled"
		if blocking {
			name = "blocking"
		}
		t.Run(name, func(t *testing.T) {
			if !blocking && !polls {
				t.Skip("this platform has no polled port")
			}
			backendtest.Run(t, func(t *testing.T) backend.Backend {
				b, err := New()
				if err != nil {
					t.Fatal(err)
				}
				b.blocking = blocking
				return b
			})
		})
	}
}
