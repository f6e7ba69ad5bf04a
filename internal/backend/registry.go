package backend

import (
	"fmt"
	"sync"
)

// added holds the backends of import lines. It is the only state in weir that belongs
// to the whole process: an import line has nowhere else to register a backend. It is
// filled while packages are initialized and only read afterwards.
var added struct {
	sync.Mutex
	list []Added
}

// Added is a backend that an import line added.
type Added struct {
	Name string
	Open func() (Backend, error)
}

// Register makes a backend known. It panics on a name that is empty or taken, as that
// can only be a mistake in the program.
func Register(name string, open func() (Backend, error)) {
	added.Lock()
	defer added.Unlock()
	if name == "" || open == nil {
		panic("weir: a backend needs a name and a way to open it")
	}
	for _, a := range added.list {
		if a.Name == name {
			panic(fmt.Sprintf("weir: backend %q is registered twice", name))
		}
	}
	added.list = append(added.list, Added{name, open})
}

// Registered lists what was registered, in that order.
func Registered() []Added {
	added.Lock()
	defer added.Unlock()
	return append([]Added(nil), added.list...)
}
