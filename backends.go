package weir

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/portable"
)

// candidate is a backend that this platform may have.
type candidate struct {
	name string
	open func() (backend.Backend, error)
}

// portableCandidate serves where nothing native does, and is last in every
// list.
var portableCandidate = candidate{"portable", func() (backend.Backend, error) { return portable.New() }}

// known are the backends that can be had, in order of preference: those that an
// import line brought, for somebody asked for them, and then the platform's.
func known() []candidate {
	var all []candidate
	for _, a := range backend.Registered() {
		all = append(all, candidate{a.Name, a.Open})
	}
	return append(all, candidates()...)
}

// Backends lists the names of the backends in order of preference: those that
// import lines brought (see package driver), then the platform's. WEIR_BACKEND
// and WithBackendName take one of them.
func Backends() []string {
	var names []string
	for _, c := range known() {
		names = append(names, c.name)
	}
	return names
}

// openBackend opens the named backend, or the first that works. A named one
// that the system refuses is replaced by the first that works, and that is
// said once, since a program that cannot start serves nobody.
func openBackend(name string, log *slog.Logger) (backend.Backend, error) {
	asked := "WithBackendName"
	if name == "" {
		name, asked = os.Getenv("WEIR_BACKEND"), "WEIR_BACKEND"
	}
	all := known()
	var errs []error
	for _, c := range all {
		if name != "" && c.name != name {
			continue
		}
		be, err := c.open()
		if err == nil {
			return be, nil
		}
		errs = append(errs, fmt.Errorf("weir: backend %s: %w", c.name, err))
	}
	if name != "" && len(errs) == 0 {
		return nil, fmt.Errorf("weir: unknown backend %q in %s; this platform has %s", name, asked, strings.Join(Backends(), ", "))
	}
	if name != "" {
		for _, c := range all {
			if c.name == name {
				continue
			}
			if be, err := c.open(); err == nil {
				log.Warn("weir: backend refused by the system, another serves", "refused", name, "serves", c.name, "error", errs[0])
				return be, nil
			}
		}
	}
	if len(errs) == 0 {
		return nil, errors.New("weir: no backend for this platform yet")
	}
	return nil, errors.Join(errs...)
}
