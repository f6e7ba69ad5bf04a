package bugs

import "testing"

// TestRowsLife: faults in the command's life that no small patch puts back.
func TestRowsLife(t *testing.T) {
	checkRows(t, []row{
		{
			id: "C6", what: "SIGQUIT printed goroutines instead of what is open", seen: "weir of 2026-11-21",
			tests: []string{"./cmd/weir TestQuitSignal"},
		},
		{
			id: "C6", what: "a container's stop had to kill: server idle, with an idle client, busy, connecting, retrying, a terminal", seen: "socat, weir of 2026-11-21",
			tests: []string{"./cmd/weir TestContainerStop", "./cmd/weir TestContainerStopConnecting", "./cmd/weir TestTyped", "./cmd/weir TestDrainTime"},
		},
		{
			id: "C7", what: "nothing told a service manager of ready, alive and stopping", seen: "weir of 2026-11-21",
			tests: []string{"./cmd/weir TestNotify"},
		},
		{
			id: "C4, X1", what: "a check of a target that drops packets never ended", seen: "weir of 2026-11-21",
			tests: []string{"./cmd/weir TestDroppedTarget", "./cmd/weir TestSlowTarget"},
		},
		{
			id: "C2", what: "a word on the command line led to the very port that was listened on", seen: "weir of 2026-11-21",
			tests: []string{"./endpoint TestLeadsTo", "./cmd/weir TestToItself"},
		},
		{
			id: "MANNERS", what: "URLs, *:8080, 0.0.0.0:8080 and exec: had no hint that fits, and a password in a URL was shown", seen: "weir of 2026-11-21",
			tests: []string{"./endpoint TestErrors", "./endpoint TestPasswordInURL", "./cmd/weir TestUsage"},
		},
		{
			id: "MANNERS", what: "the usage had words that nothing takes, weir help retry found nothing, and files were not completed after cert=", seen: "weir of 2026-11-21",
			tests: []string{"./cmd/weir TestOptionHelp", "./cmd/weir TestCompletion"},
		},
	})
}
