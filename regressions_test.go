package weir_test

import (
	"os"
	"strings"
	"testing"
)

// regression is a bug that somebody had, and what would find it here.
type regression struct {
	number int    // in RELIABILITY's list; 0: not among the 25
	whose  string // who had it
	what   string
	// scenarios are tests, as file#name.
	scenarios []string
	// later is what it concerns, if nothing here does so yet.
	later string
	bugs  []bug
}

// bug is a planted one: see bugs_on.go.
type bug struct {
	name string
	run  string // the tests that find it, as -run has them
	sim  bool   // the scenarios of TestSeeds find it as well
}

var regressions = []regression{
	{
		number: 1, whose: "libuv, Node, Bun, Twisted, netpoll", what: "EMFILE on accept spins",
		scenarios: []string{"suite_server_test.go#TestAcceptShortage", "cmd/weir/strace_linux_test.go#TestShortageInjected", "cmd/weir/strace_linux_test.go#TestShortage("},
		bugs:      []bug{{name: "accept-spins", run: "TestAcceptShortage", sim: true}},
	},
	{
		number: 2, whose: "Twisted", what: "EPERM on accept loops for ever, or ends accepting",
		scenarios: []string{"suite_server_test.go# concerns one connection"},
		bugs:      []bug{{name: "accept-stops", run: "TestAcceptShortage/concerns", sim: true}},
	},
	{
		number: 3, whose: "libuv", what: "a zero timer that re-arms itself starves polling",
		scenarios: []string{"suite_loop_test.go#14 delay 0 set again runs once per turn", "suite_loop_test.go#2 a callback that re-posts itself starves nobody"},
		bugs:      []bug{{name: "timers-first", run: "TestTimers/sim/14"}},
	},
	{
		number: 4, whose: "libuv", what: "write completions feed each other and starve reads",
		scenarios: []string{"weirtest/streams_flow.go#40 ResumeWriting that writes again does not recurse"},
	},
	{
		number: 5, whose: "libuv, uvloop", what: "very long timeouts clamp wrongly",
		scenarios: []string{"suite_loop_test.go#10 negative and endless delays"},
		bugs:      []bug{{name: "long-timer-wraps", run: "TestTimers/sim/10"}},
	},
	{
		number: 6, whose: "libuv, uvloop", what: "a wake-up races closing",
		scenarios: []string{"suite_loop_test.go#16 posts race with Close", "timer_close_test.go#TestStopTimerAfterLoopClosed"},
		bugs:      []bug{{name: "post-after-close", run: "TestLoopTurns/epoll$/(5|16)"}},
	},
	{
		number: 7, whose: "libuv", what: "close inside the receive callback, then what was freed is touched",
		scenarios: []string{"weirtest/streams_life.go#21 Abort inside DataReceived", "weirtest/streams_life.go#30 Close inside every callback"},
		bugs:      []bug{{name: "lost-in-callback", sim: true}},
	},
	{
		number: 8, whose: "libuv", what: "a descriptor number is reused and a stale event hits the new owner",
		scenarios: []string{"internal/backend/epoll/calls_linux_test.go#TestStaleRegistration", "internal/backend/epoll/calls_linux_test.go#TestNumberTaken", "internal/backend/uring/hazard_test.go#TestNumberReuse"},
	},
	{
		number: 9, whose: "libuv", what: "a deferred deregistration lands after close",
		scenarios: []string{"internal/backend/epoll/calls_linux_test.go#TestStaleRegistration", "internal/backend/epoll/calls_linux_test.go#TestNothingArmed"},
	},
	{
		number: 10, whose: "libuv", what: "PTY hang-up with a short read taken for the end",
		scenarios: []string{"internal/backend/epoll/adopt_linux_test.go#TestTerminal"},
	},
	{
		number: 11, whose: "libuv", what: "shutdown complete but the loop is kept alive",
		scenarios: []string{"weirtest/streams_flow.go#44 Close after WriteEOF"},
		bugs:      []bug{{name: "closed-stays", sim: true}},
	},
	{number: 12, whose: "libuv", what: "descriptors leak when passing them fails", later: "passing descriptors (R28)"},
	{
		number: 13, whose: "libuv", what: "overflowed completions never collected",
		scenarios: []string{"internal/backend/uring/hazard_test.go#TestOverflow"},
	},
	{
		number: 14, whose: "uvloop", what: "a cancelled dial closes someone else's descriptor",
		scenarios: []string{"suite_seeds_test.go#c.Stop()"},
		bugs:      []bug{{name: "dial-closes-twice", sim: true}},
	},
	{
		number: 15, whose: "uvloop, nbio", what: "pending bytes lost at the end",
		scenarios: []string{"weirtest/streams_end_tests.go#26 the peer sends 4 MiB and closes, the protocol is busy", "weirtest/streams_tail.go#36 the last offer is used"},
		bugs:      []bug{{name: "end-drops-tail", run: "TestStreamsSim/calm_0/(26|36|38)", sim: true}},
	},
	{
		number: 16, whose: "uvloop", what: "writing to another transport in ResumeWriting fails",
		scenarios: []string{"weirtest/streams_flow.go#40 ResumeWriting that writes to another transport"},
	},
	{number: 17, whose: "uvloop", what: "a failed spawn leaks or closes twice", later: "subprocesses (R58)"},
	{
		number: 18, whose: "Twisted", what: "close after half-close does nothing",
		scenarios: []string{"weirtest/streams_flow.go#44 Close after WriteEOF", "weirtest/streams_flow.go#44 Close long after WriteEOF"},
		bugs:      []bug{{name: "close-after-half", run: "TestStreamsSim/calm_0/44", sim: true}},
	},
	{
		number: 19, whose: "Twisted", what: "TLS close waits for ever for the peer's, or its alert goes unanswered",
		scenarios: []string{"layer/tls_test.go#TestTLS"},
	},
	{
		number: 20, whose: "Twisted", what: "a paused producer leaves CLOSE_WAIT behind; a resolver loops when it cannot bind",
		scenarios: []string{"weirtest/streams_producer.go#42 the reset tells the producer", "weirtest/streams_end_tests.go#29 reset while reading is paused"},
	},
	{
		number: 21, whose: "tokio", what: "readiness lost when a tick counter wraps; a write event blocks clearing a read",
		scenarios: []string{"internal/backend/epoll/calls_linux_test.go#TestWriteInterest", "internal/backend/epoll/random_linux_test.go#TestRandomScripts"},
	},
	{
		number: 22, whose: "netpoll", what: "EINTR panics, a short count is mishandled",
		scenarios: []string{"cmd/weir/strace_linux_test.go#TestInterrupted", "internal/backend/epoll/signal_linux_test.go#TestInjectedEINTR", "internal/backend/uring/hazard_test.go#TestShortSends"},
		bugs:      []bug{{name: "short-write-is-whole", run: "TestStreamsSim/inline_0/24", sim: true}},
	},
	{
		number: 23, whose: "gnet, libxev", what: "descriptors without CLOEXEC reach children",
		scenarios: []string{"cloexec_linux_test.go#TestChildrenInheritNothing"},
	},
	{
		number: 24, whose: "liburing, netty, TigerBeetle", what: "closing with operations in flight",
		scenarios: []string{"internal/backend/uring/hazard_test.go#TestLateCompletion", "internal/backend/uring/hazard_test.go#TestCancelRacesComplete"},
		bugs:      []bug{{name: "close-in-flight", sim: true}},
	},
	{
		number: 25, whose: "liburing", what: "multishot edges: end missed, ENOBUFS, more-flag missing at the end",
		scenarios: []string{"internal/backend/uring/hazard_test.go#TestNoBuffers", "internal/backend/uring/hazard_test.go#TestEndedEarly"},
	},
	{
		whose: "gnet, nbio", what: "backlog dropped by close",
		scenarios: []string{"weirtest/streams_life.go#24 Close with a backlog to a slow reader"},
		bugs: []bug{
			{name: "close-drops-backlog", run: "TestStreamsSim/calm_0/24", sim: true},
			{name: "end-overtakes", run: "TestStreamsSim/calm_0/(26|27|44)", sim: true},
		},
	},
	{
		whose: "gnet, nbio, netpoll, evio", what: "the reply after a half-close lost",
		scenarios: []string{"weirtest/streams_end_tests.go#27 reply 200 ms after the peer's half-close", "cmd/weir/patient_test.go#27 a reply 200 ms after the request's end"},
		bugs:      []bug{{name: "half-close-ends", run: "TestStreamsSim/calm_0/27", sim: true}},
	},
	{
		whose: "nbio", what: "connect reported as success and then refused",
		scenarios: []string{"core_test.go#TestRefused"},
		bugs:      []bug{{name: "refused-is-connected", run: "TestRefused"}},
	},
	{
		whose: "weir", what: "two ends that write before they read wait for each other",
		scenarios: []string{"weirtest/streams_flow.go#43 both directions at once, without PauseWriting"},
		bugs:      []bug{{name: "writers-stop-reading", run: "TestStreamsSim/calm_0/43_both"}},
	},
	{
		whose: "Linux", what: "a host that waits on a ring sleeps through a wake",
		scenarios: []string{"guest_test.go#TestGuest"},
	},
	{
		whose: "weir", what: "a host spins after Stop",
		scenarios: []string{"suite_loop_test.go#4 Stop before Turn"},
		bugs:      []bug{{name: "turn-keeps-stop", run: "TestLoopTurns/sim/4"}},
	},
	{
		whose: "anybody", what: "breaches of the invariants",
		scenarios: []string{"suite_seeds_test.go#TestSeeds"},
		bugs: []bug{
			{name: "lost-twice", sim: true},
			{name: "resume-twice", sim: true},
			{name: "pause-ignored", sim: true},
			{name: "tail-forgets", sim: true},
			{name: "writer-never-pauses", sim: true},
		},
	},
}

// TestRegressions holds the list above true: every one of the 25 is in it, and
// what it names is there.
func TestRegressions(t *testing.T) {
	seen := map[int]bool{}
	for _, r := range regressions {
		seen[r.number] = true
		if r.later != "" {
			continue
		}
		if len(r.scenarios) == 0 {
			t.Errorf("%d: nothing finds it (%s)", r.number, r.what)
		}
		for _, s := range r.scenarios {
			path, text, _ := strings.Cut(s, "#")
			if !strings.Contains(source(t, path), text) {
				t.Errorf("%d: there is no %q in %s", r.number, text, path)
			}
		}
		for _, b := range r.bugs {
			if b.run == "" && !b.sim {
				t.Errorf("%s: nothing finds it", b.name)
			}
			found := false
			for _, path := range []string{"connect.go", "listener.go", "loop.go", "stream.go", "stream_read.go", "stream_write.go", "timer.go"} {
				found = found || strings.Contains(source(t, path), `"`+b.name+`"`)
			}
			if !found {
				t.Errorf("%s is planted nowhere", b.name)
			}
		}
	}
	for n := 1; n <= 25; n++ {
		if !seen[n] {
			t.Errorf("%d is missing", n)
		}
	}
}

// source reads a file, or all of a directory's.
func source(t *testing.T, path string) string {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !st.IsDir() {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var all strings.Builder
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			all.WriteString(source(t, path+"/"+e.Name()))
		}
	}
	return all.String()
}
