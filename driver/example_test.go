package driver_test

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/driver"
	"github.com/weir-io/weir/internal/backend/portable"
)

// fancypoll is a backend of one's own. This one is the portable one under another
// name; drivertest.Run says whether one keeps to the contract.
type fancypoll struct{ driver.Backend }

func (b fancypoll) Caps() driver.Caps {
	caps := b.Backend.Caps()
	caps.Name = "fancypoll"
	return caps
}

// This stands in the backend's package, so that a program gets it with
//
//	import _ "example.org/fancypoll"
func init() {
	driver.Register("fancypoll", func() (driver.Backend, error) {
		be, err := portable.New()
		if err != nil {
			return nil, err // the next backend is tried
		}
		return fancypoll{be}, nil
	})
}

// A backend that was imported is tried before those of the platform, and is known
// by its name to WEIR_BACKEND and to weir.WithBackendName.
func ExampleRegister() {
	l, err := weir.New(weir.WithBackendName("fancypoll"))
	if err != nil {
		panic(err)
	}
	defer l.Close()
	fmt.Println(l.Backend().Name)
	// Output: fancypoll
}
