// Package drivertest provides the contract of a backend as a test suite, which the
// built-in backends pass.
package drivertest

import (
	"testing"

	"github.com/weir-io/weir/driver"
	"github.com/weir-io/weir/internal/backend/backendtest"
)

// Run tests the backends that maker makes, each promise in a subtest with a backend of
// its own. maker fails or skips the test if it cannot make one; Run closes the
// backends.
func Run(t *testing.T, maker func(t *testing.T) driver.Backend) { backendtest.Run(t, maker) }
