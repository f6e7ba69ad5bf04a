package bugs

import "testing"

// TestRowsBackends: faults of backends, time limits and the simulator that no
// small patch puts back.
func TestRowsBackends(t *testing.T) {
	checkRows(t, []row{
		{
			id: "L9", what: "a ring that the kernel no longer serves ended the process with an error that said nothing", seen: "weir of 2026-11-21",
			tests: []string{"./internal/backend/uring TestEnterFails"},
		},
		{
			id: "L9", what: "an urgent byte made io_uring try a receive without end", seen: "",
			tests: []string{"./internal/backend/uring TestPatience"},
		},
		{
			id: "L13", what: "closing a listener on io_uring in one callback and listening again was EADDRINUSE", seen: "weir of 2026-11-21",
			tests: []string{"./tests/contract TestListenAgain"},
		},
	})
}
