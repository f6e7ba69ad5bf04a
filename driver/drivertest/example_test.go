package drivertest_test

import (
	"testing"

	"github.com/weir-io/weir/driver"
	"github.com/weir-io/weir/driver/drivertest"
	"github.com/weir-io/weir/internal/backend/portable"
)

// A backend's own test: each promise of the contract is a subtest.
func ExampleRun() {
	testContract := func(t *testing.T) {
		drivertest.Run(t, func(t *testing.T) driver.Backend {
			be, err := portable.New() // put the backend to be tested here
			if err != nil {
				t.Fatal(err)
			}
			return be
		})
	}
	_ = testContract // in a test file: func TestContract(t *testing.T)
}
