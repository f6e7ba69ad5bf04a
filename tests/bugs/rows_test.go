package bugs

import "testing"

// TestRows: faults that no small patch puts back, and the tests that find them.
func TestRows(t *testing.T) {
	checkRows(t, []row{
		{
			id: "C5, A6", what: "one socket passed as both input and output, as inetd does, never saw its end passed on", seen: "socat, weir of 2026-11-21",
			tests: []string{"./tests/contract TestOneSocketTwice"},
		},
		{
			id: "C9", what: "the reader of an idle output went away, and no one noticed", seen: "weir of 2026-11-21",
			tests: []string{"./tests/contract TestReaderGoneIdle", "./tests/contract TestPeerDeparted"},
		},
	})
}
