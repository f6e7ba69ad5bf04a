package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/weir-io/weir/bench/internal/load"
)

// wayPeer is an echo server that waits in one way.
type wayPeer struct{ name, build, flag, way string }

var wayPeers = []wayPeer{
	{"raw system call", "servers/waiting", "-way", "raw"},
	{"system call", "servers/waiting", "-way", "syscall"},
	{"the same, yields every 4 ms", "servers/waiting", "-way", "yield"},
	{"the same, on any thread", "servers/waiting", "-way", "loose"},
	{"the runtime's poller", "servers/waiting", "-way", "poller"},
	{"spins 50 µs, then waits", "servers/waiting", "-way", "spin"},
	{"weir, epoll", weirServer, "-backend", "epoll"},
	{"weir, epoll-et", weirServer, "-backend", "epoll-et"},
	{"weir, uring", weirServer, "-backend", "uring"},
	{"weir, portable", weirServer, "-backend", "portable"},
	{"a goroutine per connection", "servers/std", "", ""},
}

// surroundings are the conditions in which a loop runs.
type surroundings struct {
	procs   int
	collect bool
}

// wayResult is the cost of one way in one of the surroundings.
type wayResult struct {
	cost, p99 []float64 // µs, by round
	gc        []float64 // ms, of each collection
}

// waiting compares the ways to wait, with and without collections, with a
// GOMAXPROCS of one and of two, and writes a table.
func (b *bench) waiting(out string) error {
	clean, err := b.prepare(&out)
	if err != nil {
		return err
	}
	defer clean()
	around := []surroundings{{1, false}, {2, false}, {1, true}, {2, true}}
	var text strings.Builder
	b.report.describe(b, false)
	fmt.Fprintf(&text, `# Ways to wait

%s. %s; %d CPUs, %s; load %s before; %s.

Echo of 64 B, a message at a time on each connection; the server on one CPU, the
load on the other; medians of %d rounds, with each way once in a round. CPU and p99 in
µs per message. With collections, the server makes garbage and collects it every
10 ms; then GC is how long a collection takes in ms, median and longest.
`, b.report.Date, b.report.Machine.Kernel, b.report.Machine.CPUs, b.report.Machine.CPU, b.report.Machine.Load, runtime.Version(), b.rounds)
	for _, conns := range []int{1, 64} {
		c := testCase{Name: "waiting", loops: 1, spec: load.Spec{Kind: load.Echo, Conns: conns, Size: 64, Depth: 1, Warm: 100 * time.Millisecond, Run: 400 * time.Millisecond}}
		got := make([][]wayResult, len(wayPeers))
		for i := range got {
			got[i] = make([]wayResult, len(around))
		}
		for round := range b.rounds {
			for k, a := range around {
				for i, w := range wayPeers {
					if round%2 == 1 {
						i = len(wayPeers) - 1 - i
						w = wayPeers[i]
					}
					b.say("%d connections  round %d of %d  GOMAXPROCS %d  %s", conns, round+1, b.rounds, a.procs, w.name)
					if err := b.waitingOnce(&c, w, a, &got[i][k]); err != nil {
						return fmt.Errorf("%s: %w", w.name, err)
					}
				}
			}
		}
		plural := "s"
		if conns == 1 {
			plural = ""
		}
		fmt.Fprintf(&text, "\n## %d connection%s\n\n| way | 1 processor: CPU, p99 | 2: CPU, p99 | 1, collections: CPU, p99, GC | 2, collections: CPU, p99, GC |\n|---|---|---|---|---|\n", conns, plural)
		for i, w := range wayPeers {
			fmt.Fprintf(&text, "| %s", w.name)
			for k, a := range around {
				r := &got[i][k]
				fmt.Fprintf(&text, " | %.1f, %.0f", spreadOf(r.cost).Median, spreadOf(r.p99).Median)
				if a.collect {
					gc := spreadOf(r.gc)
					fmt.Fprintf(&text, ", %.2f to %.1f", gc.Median, gc.Max)
				}
			}
			text.WriteString(" |\n")
		}
		b.done("%d connections", conns)
	}
	path := filepath.Join(out, "waiting.md")
	b.done("writing %s", path)
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}

func (b *bench) waitingOnce(c *testCase, w wayPeer, a surroundings, r *wayResult) error {
	var more []string
	if w.flag != "" {
		more = append(more, w.flag, w.way)
	}
	if a.collect {
		more = append(more, "-collect")
	}
	p := peer{name: w.name, build: w.build, side: true, procs: a.procs, argv: func(s start) []string {
		return slices.Concat([]string{"-addr", s.addr}, more)
	}}
	srv, addr, err := b.server(p, c, "")
	if err != nil {
		return err
	}
	defer srv.end()
	spec := c.spec
	spec.Addr, spec.PIDs = addr, []int{srv.pid()}
	ld, err := b.loader(c, spec)
	if err != nil {
		return err
	}
	defer ld.end()
	var res load.Result
	if err := ld.object(&res, limit(spec)); err != nil {
		return err
	}
	if res.Messages == 0 {
		return fmt.Errorf("nothing came back")
	}
	st, err := srv.stats("stats")
	if err != nil {
		return err
	}
	r.cost = append(r.cost, res.ServerCPU/float64(res.Messages)*1e6)
	r.p99 = append(r.p99, res.P99/1e3)
	r.gc = append(r.gc, st.GCTimes...)
	return nil
}
