package main

import (
	"fmt"
	"slices"
	"strings"
)

const howToRead = `Each server is a process of its own with a CPU to itself, the load another on
the other CPU; in "two loops" they share both. GOMAXPROCS is still the machine's,
as it is by default for programs that are not tied to a CPU. The load is weir's own
(` + "`bench/internal/load`" + `): bare system calls, every byte checked against the place
where it belongs. CPU is the server process's, user and system, from the scheduler's
clock; over loopback it contains most of the kernel's TCP for both ends. Every
round runs each peer once, in alternating order; figures are medians over the rounds
followed by the least and the most, ratios are medians of ratios within a
round. The machine is shared and drifts: differences within 8 % do not count. Latencies of the
open loop count from when a message should have left (coordinated omission is
corrected). System calls were counted in a pass of their own under strace, which
slows the server and so makes its turns larger. Kernel memory is slab and socket
buffers of both ends of a loopback connection. "c-epoll" and "c-uring" are this
tree's own C servers, the floor; "std" is the standard library with a goroutine
for each connection. In "each message answered by itself" a server writes once
for each message: "std" and nbio then make a system call for each, weir, evio and
netpoll join what one turn writes, and "std-joined" does so by hand (a
bufio.Writer, flushed when no whole message is left to read). The C servers echo
bytes there as everywhere. Timers are measured in the thread's CPU time, posts by the wall
clock.
`

const howToRun = `## Running it

` + "`" + `make bench` + "`" + ` takes a quarter of an hour on a quiet machine. Besides Go it needs gcc,
strace, haproxy, nginx and socat (` + "`" + `apt-get install gcc strace haproxy nginx socat` + "`" + `); what is
missing is left out and listed. ` + "`" + `make -C bench tls` + "`" + ` and ` + "`" + `make -C bench waiting` + "`" + ` take two to
three minutes each and write ` + "`" + `tls.md` + "`" + ` and ` + "`" + `waiting.md` + "`" + `.

To measure one change, take a few cases, before and after in one run, since machines
drift:

    cd bench && go run ./cmd/weirbench -only echo-1000 -peers weir-epoll -beside ../../before -out /tmp/b

` + "`" + `-list` + "`" + ` lists cases and peers, ` + "`" + `-profile DIR` + "`" + ` writes profiles of the servers.
` + "`" + `make -C bench datagrams` + "`" + ` takes ten minutes and writes ` + "`" + `datagrams.md` + "`" + `.
`

func (r *report) markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# What weir costs beside others\n\n")
	p("Written by `make -C bench`; the figures of every row are in `results.json`, and what each round\n"+
		"measured goes to `samples.json`, which git does not keep. %s, took %s", r.Date, r.Took)
	if r.Quick {
		p(", a quick run: short rounds and few of them")
	}
	p(".\n\n- %s, %d CPUs, %s of memory; load average before %s\n- %s\n", r.Machine.CPU, r.Machine.CPUs, r.Machine.Memory, r.Machine.Load, r.Machine.Kernel)
	for _, v := range r.Versions {
		p("- %s\n", v)
	}
	p("\n%s\n", howToRead)
	if len(r.Skipped) > 0 {
		p("Not in this run:\n\n")
		for _, s := range r.Skipped {
			p("- %s\n", s)
		}
		p("\n")
	}
	r.targetTable(p)
	for _, f := range r.figures() {
		p("![%s](%s)\n\n", f.title, f.file)
	}
	for _, who := range []string{"weir-epoll", "weir-uring", "weir-epoll-splice", "weir-uring-splice", "cmd-weir"} {
		r.ratioTable(p, who)
	}
	for i := range r.Cases {
		r.Cases[i].table(p)
	}
	r.countTable(p)
	r.memoryTable(p)
	for i := range r.Micros {
		r.Micros[i].table(p)
	}
	p("%s", howToRun)
	return b.String()
}

type printer func(format string, args ...any)

func (r *report) targetTable(p printer) {
	all := r.verdicts()
	if len(all) == 0 {
		return
	}
	met := 0
	for _, v := range all {
		if v.met {
			met++
		}
	}
	p("## Aims\n\n%d of %d met in this run.\n\n\"Measured\" is the median of ratios; \"least\" is the ratio of each server's cheapest round, to which other work on the machine has added least.\n\n| | aim | measured | | least |\n|---|---|---|---|---|\n", met, len(all))
	for _, v := range all {
		word := v.word()
		if !v.met {
			word = "**" + word + "**"
		}
		p("| %s | %s | %s | %s | %s |\n", v.what, v.aim, v.got, word, v.least)
	}
	p("\n## Pictures\n\n")
}

func (c *caseResult) table(p printer) {
	p("## %s\n\n", c.Title)
	if c.c.unit == perIdle {
		return // memoryTable shows it
	}
	throughput := "rate, 1/s"
	if c.c.unit == perGiB {
		throughput = "MB/s"
	}
	latencies := c.c.unit != perGiB
	p("| server | %s | least…most | to %s | to %s | %s |", c.Unit, c.Floor, c.c.std(), throughput)
	if latencies {
		p(" p50, µs | p99, µs | p99.9, µs |")
	}
	p("\n|---|---|---|---|---|---|")
	if latencies {
		p("---|---|---|")
	}
	p("\n")
	for i := range c.Rows {
		w := &c.Rows[i]
		if w.Cost.none() {
			p("| %s | %s |\n", w.Peer, w.failure())
			continue
		}
		rate := w.Rate
		if c.c.unit == perGiB {
			rate = w.MBs
		}
		name := w.Peer
		if strings.Contains(name, "weir") {
			name = "**" + name + "**"
		}
		if f := w.failure(); f != "" {
			name += " (" + f + ")"
		}
		p("| %s | %s | %s…%s | %.2f | %.2f | %s |", name, short(w.Cost.Median), short(w.Cost.Min), short(w.Cost.Max),
			w.ToFloor.Median, w.ToStd.Median, short(rate))
		if latencies {
			p(" %s | %s | %s |", short(w.P50), short(w.P99), short(w.P999))
		}
		p("\n")
	}
	p("\n")
}

// ratioTable compares one server with each of the others, in every case that it
// takes part in.
func (r *report) ratioTable(p printer, who string) {
	var with []*caseResult
	var peers []string
	for i := range r.Cases {
		c := &r.Cases[i]
		if c.row(who) == nil {
			continue
		}
		with = append(with, c)
		for _, w := range c.Rows {
			if !strings.Contains(w.Peer, "weir") && !slices.Contains(peers, w.Peer) {
				peers = append(peers, w.Peer)
			}
		}
	}
	if len(with) == 0 || len(peers) == 0 {
		return
	}
	p("## %s to each\n\nIts cost (CPU; p50 in greedy and relay-first) divided by theirs: below 1, %s takes less.\n\n| to |", who, who)
	for _, c := range with {
		p(" %s |", c.Name)
	}
	p("\n|---|%s\n", strings.Repeat("---|", len(with)))
	for _, name := range peers {
		p("| %s |", name)
		for _, c := range with {
			text := "–"
			if other := c.row(name); other != nil {
				if v, ok := c.ratio(c.row(who), other); ok {
					text = fmt.Sprintf("%.2f", v)
				}
			}
			p(" %s |", text)
		}
		p("\n")
	}
	p("\n")
}

// countTable shows system calls and allocations of all cases side by side.
func (r *report) countTable(p printer) {
	var with []*caseResult
	var peers []string
	for i := range r.Cases {
		c := &r.Cases[i]
		if !c.c.count {
			continue
		}
		with = append(with, c)
		for _, w := range c.Rows {
			if !slices.Contains(peers, w.Peer) {
				peers = append(peers, w.Peer)
			}
		}
	}
	if len(with) == 0 {
		return
	}
	for _, what := range []struct {
		title string
		get   func(*counts) float64
	}{
		{"System calls for each message", func(n *counts) float64 { return n.Syscalls }},
		{"Allocations for each message", func(n *counts) float64 { return n.Allocs }},
	} {
		p("## %s\n\n| server |", what.title)
		for _, c := range with {
			p(" %s |", c.Name)
		}
		p("\n|---|%s\n", strings.Repeat("---|", len(with)))
		for _, name := range peers {
			p("| %s |", name)
			for _, c := range with {
				w := c.row(name)
				if w == nil || w.Counts == nil {
					p(" – |")
				} else {
					p(" %s |", fixed(what.get(w.Counts)))
				}
			}
			p("\n")
		}
		p("\n")
	}
}

func (r *report) memoryTable(p printer) {
	for i := range r.Cases {
		c := &r.Cases[i]
		if !c.c.memory {
			continue
		}
		if c.c.unit == perIdle {
			p("## %s\n\nBytes for each of %d connections, idle for 4 s; \"weir-…\" and \"std\" collect garbage before.\n\n", c.Title, c.c.spec.Conns-c.c.spec.Conns/10)
		} else {
			p("## Memory of an idle connection, bytes\n\n%d connections after the load, garbage collected.\n\n", c.c.spec.Conns)
		}
		p("| server | heap | stacks | process (RSS) | kernel, both ends |\n|---|---|---|---|---|\n")
		for _, w := range c.Rows {
			if w.Memory == nil {
				continue
			}
			heap, stack := short(w.Memory.Heap), short(w.Memory.Stack)
			if strings.HasPrefix(w.Peer, "c-") {
				heap, stack = "–", "–"
			}
			p("| %s | %s | %s | %s | %s |\n", w.Peer, heap, stack, short(w.Memory.RSS), short(w.Memory.Kernel))
		}
		p("\n")
	}
}

func (m *microResult) table(p printer) {
	p("## %s\n\n| | ns (bytes where it says so) | least…most |\n|---|---|---|\n", m.Title)
	for _, w := range m.Rows {
		p("| %s | %s | %s…%s |\n", w.Name, short(w.Value.Median), short(w.Value.Min), short(w.Value.Max))
	}
	if m.WakeCalls >= 0 {
		p("\nSystem calls to wake the loop, for each post while it is awake: %.5f.\n", m.WakeCalls)
	}
	p("\n")
}
