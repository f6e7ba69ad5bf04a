package weirtest

import "github.com/weir-io/weir/internal/backend/sim"

// SimForeign is a loop of a host's program that is not weir's, such as a GUI's. A loop of
// weir is its guest by Loop.Guest(f.Post): its turns then come among the foreign loop's
// own steps, when the seed says so.
type SimForeign struct{ f *sim.Foreign }

// Foreign makes a foreign loop on the host. own is one of the loop's own steps, of which
// there is any number between two posted functions; nil: it has none. A crash of the host
// ends it.
func (h *SimHost) Foreign(own func()) *SimForeign { return &SimForeign{h.host.Foreign(own)} }

// Post has the foreign loop run fn after everything posted before. Like the rest of a Sim
// it belongs to the test's goroutine.
func (f *SimForeign) Post(fn func()) { f.f.Post(fn) }
