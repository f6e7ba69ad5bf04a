package repo

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// regression is a bug that someone had, and what would find it here.
type regression struct {
	number int    // in docs/promises.md's list; 0: not among the 25
	whose  string // who had it
	what   string
	// scenarios are tests, as file#name.
	scenarios []string
	// later is what it concerns, if that does not exist here yet.
	later string
	bugs  []string // patches of tests/bugs that put it back
}

var regressions = []regression{
	{
		number: 1, whose: "libuv, Node, Bun, Twisted, netpoll", what: "EMFILE on accept spins",
		scenarios: []string{"tests/contract/server_test.go#TestAcceptShortage", "cmd/weir/strace_linux_test.go#TestShortageInjected", "cmd/weir/strace_linux_test.go#TestShortage"},
		bugs:      []string{"accept-spins"},
	},
	{
		number: 2, whose: "Twisted", what: "EPERM on accept loops for ever, or ends accepting",
		scenarios: []string{"tests/contract/server_test.go# concerns one connection"},
		bugs:      []string{"accept-stops"},
	},
	{
		number: 3, whose: "libuv", what: "a zero timer that re-arms itself starves polling",
		scenarios: []string{"tests/contract/loop_test.go#14 delay 0 set again runs once per turn", "tests/contract/loop_test.go#2 a callback that re-posts itself starves no one"},
		bugs:      []string{"timers-first"},
	},
	{
		number: 4, whose: "libuv", what: "write completions feed each other and starve reads",
		scenarios: []string{"tests/contract/starve_test.go#TestWritesStarveNoReads", "weirtest/streams_flow.go#40 ResumeWriting that writes again does not recurse"},
		bugs:      []string{"writes-starve-reads"},
	},
	{
		number: 5, whose: "libuv, uvloop", what: "very long timeouts clamp wrongly",
		scenarios: []string{"tests/contract/loop_test.go#10 negative and endless delays"},
		bugs:      []string{"long-timer-wraps"},
	},
	{
		number: 6, whose: "libuv, uvloop", what: "a wake-up races closing",
		scenarios: []string{"tests/contract/loop_test.go#16 posts race with Close", "tests/sim/seeds_ends_test.go#a post is accepted after Close", "tests/contract/timer_close_test.go#TestStopTimerAfterLoopClosed"},
		bugs:      []string{"post-after-close"},
	},
	{
		number: 7, whose: "libuv", what: "close inside the receive callback, then what was freed is touched",
		scenarios: []string{"weirtest/streams_life.go#21 Abort inside DataReceived", "weirtest/streams_life.go#30 Close inside every callback"},
		bugs:      []string{"lost-in-callback"},
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
		scenarios: []string{"internal/backend/epoll/adopt_linux_test.go#TestTerminal", "process/process_linux_test.go#TestTerminal"},
		bugs:      []string{"terminal-short-end"},
	},
	{
		number: 11, whose: "libuv", what: "shutdown complete but the loop is kept alive",
		scenarios: []string{"weirtest/streams_flow.go#44 Close after WriteEOF"},
		bugs:      []string{"closed-stays"},
	},
	{
		number: 12, whose: "libuv", what: "descriptors leak when passing them fails",
		scenarios: []string{"tests/contract/passing_linux_test.go#TestPassedUnwanted", "tests/contract/passing_linux_test.go#TestPassedRefused"},
		bugs:      []string{"passing-dead-leaks"},
	},
	{
		number: 13, whose: "libuv", what: "overflowed completions never collected",
		scenarios: []string{"internal/backend/uring/hazard_test.go#TestOverflow"},
	},
	{
		number: 14, whose: "uvloop", what: "a canceled dial closes someone else's descriptor",
		scenarios: []string{"tests/sim/seeds_test.go#churn"},
		bugs:      []string{"dial-closes-twice"},
	},
	{
		number: 15, whose: "uvloop, nbio", what: "pending bytes lost at the end",
		scenarios: []string{"weirtest/streams_end_tests.go#26 the peer sends 4 MiB and closes, the protocol is busy", "weirtest/streams_tail.go#36 the last offer is used"},
		bugs:      []string{"end-drops-tail"},
	},
	{
		number: 16, whose: "uvloop", what: "writing to another transport in ResumeWriting fails",
		scenarios: []string{"weirtest/streams_flow.go#40 ResumeWriting that writes to another transport"},
	},
	{
		number: 17, whose: "uvloop", what: "a failed spawn leaks or closes twice",
		scenarios: []string{"process/process_linux_test.go#TestStartFails", "process/injected_linux_test.go#TestInjected"},
		bugs:      []string{"process-failed-leaks"},
	},
	{
		number: 18, whose: "Twisted", what: "close after half-close does nothing",
		scenarios: []string{"weirtest/streams_flow.go#44 Close after WriteEOF", "weirtest/streams_flow.go#44 Close long after WriteEOF"},
		bugs:      []string{"close-after-half"},
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
		bugs:      []string{"short-write-is-whole"},
	},
	{
		number: 23, whose: "gnet, libxev", what: "descriptors without CLOEXEC reach children",
		scenarios: []string{"tests/contract/cloexec_linux_test.go#TestChildrenInheritNothing", "process/process_linux_test.go#TestPermuted"},
		bugs:      []string{"process-inherits"},
	},
	{
		number: 24, whose: "liburing, netty, TigerBeetle", what: "closing with operations in flight",
		scenarios: []string{"internal/backend/uring/hazard_test.go#TestLateCompletion", "internal/backend/uring/hazard_test.go#TestCancelRacesComplete"},
		bugs:      []string{"close-in-flight"},
	},
	{
		number: 25, whose: "liburing", what: "multishot edges: end missed, ENOBUFS, more-flag missing at the end",
		scenarios: []string{"internal/backend/uring/hazard_test.go#TestNoBuffers", "internal/backend/uring/hazard_test.go#TestEndedEarly"},
	},
	{
		whose: "gnet, nbio", what: "backlog dropped by close",
		scenarios: []string{"weirtest/streams_life.go#24 Close with a backlog to a slow reader"},
		bugs:      []string{"close-drops-backlog", "end-overtakes"},
	},
	{
		whose: "gnet, nbio, netpoll, evio", what: "the reply after a half-close lost",
		scenarios: []string{"weirtest/streams_end_tests.go#27 reply 200 ms after the peer's half-close", "cmd/weir/patient_test.go#27 a reply 200 ms after the request's end"},
		bugs:      []string{"half-close-ends"},
	},
	{
		whose: "nbio", what: "connect reported as success and then refused",
		scenarios: []string{"tests/contract/core_test.go#TestRefused"},
		bugs:      []string{"refused-is-connected"},
	},
	{
		whose: "weir", what: "two ends that write before they read wait for each other",
		scenarios: []string{"weirtest/streams_flow.go#43 both directions at once, without PauseWriting"},
		bugs:      []string{"writers-stop-reading"},
	},
	{
		whose: "Linux", what: "a host that waits on a ring sleeps through a wake",
		scenarios: []string{"tests/contract/guest_test.go#TestGuest"},
	},
	{
		whose: "weir", what: "a host spins after Stop",
		scenarios: []string{"tests/contract/loop_test.go#4 Stop before Turn"},
		bugs:      []string{"turn-keeps-stop"},
	},
	{
		whose: "anybody", what: "breaches of the invariants",
		scenarios: []string{"tests/sim/seeds_test.go#TestSeeds"},
		bugs:      []string{"lost-twice", "resume-twice", "pause-ignored", "tail-forgets", "writer-never-pauses"},
	},
}

// TestRegressions checks the list above: every one of the 25 is in it, and
// everything that it names exists.
func TestRegressions(t *testing.T) {
	t.Chdir("../..")
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
			tests, words := declarations(t, path)
			if strings.HasPrefix(text, "Test") && !tests[text] {
				t.Errorf("%d: %s declares no %s", r.number, path, text)
			} else if !strings.HasPrefix(text, "Test") && !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(w, text) }) {
				t.Errorf("%d: %s has no case %q", r.number, path, text)
			}
		}
		for _, b := range r.bugs {
			if _, err := os.Stat("tests/bugs/" + b + ".patch"); err != nil {
				t.Errorf("%d: %v", r.number, err)
			}
		}
	}
	for n := 1; n <= 25; n++ {
		if !seen[n] {
			t.Errorf("%d is missing", n)
		}
	}
}

// declarations finds the tests that a file declares and its strings, which include the
// names of cases: comments do not count.
func declarations(t *testing.T, path string) (tests map[string]bool, words []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	tests = map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			tests[n.Name.Name] = true
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				if text, err := strconv.Unquote(n.Value); err == nil {
					words = append(words, text)
				}
			}
		}
		return true
	})
	return tests, words
}
