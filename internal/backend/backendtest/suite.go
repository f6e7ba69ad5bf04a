// Package backendtest is the contract of package backend as a suite of tests that takes
// a maker: every backend must give the same answers.
//
//	func TestContract(t *testing.T) {
//		backendtest.Run(t, func(t *testing.T) backend.Backend { ... })
//	}
//
// The suite uses nothing but the contract. A case is skipped if the backend lacks
// something that it needs, and the skip names what is missing.
package backendtest

import (
	"runtime"
	"testing"

	"github.com/weir-io/weir/internal/backend"
)

// A check is one case: what is tried, and why it is worth trying.
type check struct {
	name   string
	reason string
	need   func(backend.Caps) string // what is missing, or ""; nil if nothing is needed
	run    func(*rig)
}

// Run runs the whole suite. maker returns a new backend for one test, which Run closes;
// two backends of one test can reach each other by address. Each case has its own
// subtest and so its own goroutine, from which the backend is made and used; it is
// locked to its thread if Caps.Thread asks for it.
func Run(t *testing.T, maker func(t *testing.T) backend.Backend) {
	for _, checks := range [][]check{streamChecks, flowChecks, lifeChecks, waitChecks, socketChecks, datagramChecks, descriptorChecks()} {
		for _, c := range checks {
			t.Run(c.name, func(t *testing.T) {
				r := newRig(t, maker)
				if c.need != nil {
					if missing := c.need(r.caps); missing != "" {
						t.Skipf("backend %s lacks %s", r.caps.Name, missing)
					}
				}
				defer func() {
					if t.Failed() {
						t.Logf("why this matters: %s", c.reason)
					}
				}()
				c.run(r)
			})
		}
	}
}

func newRig(t *testing.T, maker func(t *testing.T) backend.Backend) *rig {
	be := maker(t)
	r := &rig{
		t: t, be: be, caps: be.Caps(), maker: maker,
		done: make([]backend.Completion, 64),
		out:  map[*backend.Op]bool{},
		got:  map[*backend.Op][]result{},
	}
	if r.caps.Thread {
		runtime.LockOSThread()
		t.Cleanup(runtime.UnlockOSThread)
	}
	t.Cleanup(func() {
		if err := be.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

func needDescriptors(c backend.Caps) string {
	if !c.Descriptors {
		return "handles that are descriptors (Caps.Descriptors)"
	}
	return ""
}

func needAdopt(c backend.Caps) string {
	if !c.Descriptors && !c.Adopts {
		return "descriptors of the process (Caps.Adopts)"
	}
	return ""
}

func needSplice(c backend.Caps) string {
	if !c.Splice {
		return "splicing (Caps.Splice)"
	}
	return needDescriptors(c)
}
