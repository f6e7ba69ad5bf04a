// Package choice knows which backends this platform has, and opens one of them.
package choice

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

// portableCandidate serves if nothing native does, and comes last in every list.
var portableCandidate = candidate{"portable", func() (backend.Backend, error) { return portable.New() }}

// known returns the available backends in order of preference: first those that import
// lines added, since someone asked for them, then the platform's.
func known() []candidate {
	var all []candidate
	for _, a := range backend.Registered() {
		all = append(all, candidate{a.Name, a.Open})
	}
	return append(all, candidates()...)
}

// Names lists the backends in order of preference.
func Names() []string {
	var names []string
	for _, c := range known() {
		names = append(names, c.name)
	}
	return names
}

// Open opens the backend that WithBackendName names, or else WEIR_BACKEND, or else the
// first that works. If the system refuses a named backend, the first that works
// replaces it, which is logged once: a program that cannot start serves no one.
func Open(name string, log *slog.Logger) (backend.Backend, error) {
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
		return nil, fmt.Errorf("weir: unknown backend %q in %s; this platform has %s", name, asked, strings.Join(Names(), ", "))
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
