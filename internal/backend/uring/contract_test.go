//go:build linux

package uring

import (
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/backendtest"
)

// everything is the set of features that this kernel may have beyond the minimum.
const everything = SingleIssuer | TaskrunFlag | NoArray | SkipSuccess | MultiAccept | MultiRecv | Incremental | Bundles

// TestContract runs the contract's suite with every feature that the kernel has,
// without each one, with next to none, and with queues and buffers so small that they
// overflow and run out all the time.
func TestContract(t *testing.T) {
	for _, c := range configs {
		t.Run(c.name, func(t *testing.T) {
			backendtest.Run(t, func(t *testing.T) backend.Backend {
				b, err := New(c.config)
				if err != nil {
					t.Fatal(err)
				}
				return b
			})
		})
	}
}
