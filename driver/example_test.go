package driver_test

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/driver"
	"github.com/weir-io/weir/internal/backend/portable"
)

// fancypoll is a custom backend. This one is the portable backend under another name;
// drivertest.Run checks whether a backend keeps to the contract.
type fancypoll struct{ driver.Backend }

func (b fancypoll) Caps() driver.Caps {
	caps := b.Backend.Caps()
	caps.Name = "fancypoll"
	return caps
}

// This belongs in the backend's package, so that a program gets it with
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

// An imported backend is tried before those of the platform; WEIR_BACKEND and
// weir.WithBackendName can choose it by name.
func ExampleRegister() {
	l, err := weir.NewLoop(weir.WithBackendName("fancypoll"))
	if err != nil {
		panic(err)
	}
	defer l.Close()
	fmt.Println(l.Backend().Name)
	// Output: fancypoll
}
