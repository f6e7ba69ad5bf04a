//go:build windows

package iocp

import (
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/backendtest"
)

// TestContract runs the suite with packets for what succeeds at once and without.
func TestContract(t *testing.T) {
	for name, config := range map[string]Config{"skip": {}, "noskip": {NoSkip: true}} {
		t.Run(name, func(t *testing.T) {
			backendtest.Run(t, func(t *testing.T) backend.Backend {
				b, err := New(config)
				if err != nil {
					t.Fatal(err)
				}
				return b
			})
		})
	}
}
