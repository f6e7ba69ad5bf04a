//go:build linux

package uring

import (
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/backendtest"
)

// everything is what the kernel here may have beyond the least.
const everything = SingleIssuer | TaskrunFlag | NoArray | SkipSuccess | MultiAccept | MultiRecv | Incremental | Bundles

// TestContract runs the contract's suite with all that the kernel has, without
// each feature, with next to none, and with queues and buffers so small that
// they overflow and run out all the time.
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
