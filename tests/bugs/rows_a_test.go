package bugs

import "testing"

// TestRowsA: bytes and deaths.
func TestRowsA(t *testing.T) {
	checkRows(t, []row{
		{
			id: "L1", what: "a slow client got 12,288 of the 102,400 bytes that came before a reset, and the relay's result said all of them", seen: "weir of 2026-11-21",
			tests: []string{"./layer TestRelayDeliversBeforeReset"},
		},
		{
			id: "L3", what: "with both ends full, the reset of one was never told to the other", seen: "weir of 2026-11-21",
			tests: []string{"./tests/contract TestStreams"},
		},
	})
}
