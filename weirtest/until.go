package weirtest

import (
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// patience is how long Until waits, in the loop's time.
const patience = 20 * time.Second

// Until turns a loop of the test's own, on any backend, until cond holds, and fails
// the test if it does not hold within 20 seconds; what names the thing it waits
// for. It must be called on the goroutine that has the loop (weir.Loop.Turn), not
// from a callback. A simulated network has a method of its own: Sim.Until.
func Until(tb testing.TB, l *weir.Loop, what string, cond func() bool) {
	tb.Helper()
	late := false
	bound := l.After(patience, func() { late = true })
	defer bound.Stop()
	for !cond() {
		if late {
			tb.Fatal("waited in vain for ", what)
		}
		// Calls from outside a callback make no event.
		if err := l.Turn(5 * time.Millisecond); err != nil {
			tb.Fatal(err)
		}
	}
}
