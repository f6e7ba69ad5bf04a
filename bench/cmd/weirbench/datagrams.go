package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir/bench/internal/load"
	"github.com/weir-io/weir/bench/internal/plot"
)

// The benchmark of datagrams (-datagrams) is a run of its own, with its own page.

func udpArgs(more ...string) func(start) []string {
	return goArgs(append([]string{"-udp"}, more...)...)
}

func cDatagrams(join string) func(start) []string {
	return func(s start) []string {
		a := []string{s.addr, join}
		if s.target != "" {
			a = append(a, s.target)
		}
		return a
	}
}

func weirDatagrams(backend string) peer {
	return peer{name: "weir-" + backend, build: weirServer, side: true, argv: udpArgs("-backend", backend)}
}

// datagramPeers are echo servers, the floor first.
var datagramPeers = []peer{
	{name: "c-gso", build: "c/datagrams", argv: cDatagrams("1")},
	{name: "c-mmsg", build: "c/datagrams", argv: cDatagrams("0")},
	weirDatagrams("epoll"),
	weirDatagrams("uring"),
	{name: "std", build: "servers/std", side: true, argv: udpArgs()},
	{name: "gnet", build: "servers/gnet", side: true, argv: udpArgs()},
}

// datagramRelays are relays, the floor first.
var datagramRelays = []peer{
	{name: "c-gso", build: "c/datagrams", argv: cDatagrams("1")},
	{name: "c-mmsg", build: "c/datagrams", argv: cDatagrams("0")},
	weirDatagrams("epoll"),
	weirDatagrams("uring"),
	{name: "cmd-weir", build: weirCommand, argv: func(s start) []string {
		return []string{"udp-listen:" + s.addr, "udp:" + s.target, "--quiet"}
	}},
	{name: "std", build: "servers/std", side: true, argv: udpArgs()},
	{name: "nginx", prog: "nginx", argv: func(s start) []string { return nginxRelay(s, "proxy_timeout 60s;", s.addr+" udp") }},
	{name: "socat", prog: "socat", extra: true, argv: func(s start) []string {
		host, port, _ := strings.Cut(s.addr, ":")
		return []string{"-b", "65536", "UDP4-LISTEN:" + port + ",bind=" + host + ",fork", "UDP4:" + s.target}
	}},
}

func (c *testCase) datagrams() bool {
	return c.spec.Kind == load.Datagrams || c.spec.Kind == load.DatagramRelay
}

// datagramCases lists everything in the order in which it is run.
func datagramCases(warm, run time.Duration) []testCase {
	var all []testCase
	add := func(kind string, size, flows, burst, depth int, join bool) {
		c := testCase{
			spec:  load.Spec{Kind: kind, Conns: flows, Size: size, Burst: burst, Depth: depth, Join: join, Warm: warm, Run: run},
			loops: 1, count: true, aim: true, unit: perDatagram,
		}
		c.Name, c.Title = "echo", "Echo"
		if kind == load.DatagramRelay {
			c.Name, c.Title, c.unit = "relay", "Relay, there and back", perTwoDatagrams
		}
		number := "one flow"
		if flows > 1 {
			number = short(float64(flows)) + " flows"
		}
		c.Name += fmt.Sprintf("-%d-%d", size, flows)
		c.Title += fmt.Sprintf(", %s B, %s", strings.TrimSuffix(short(float64(size)), ".0"), number)
		if join {
			c.Name += "-gso"
			c.Title += fmt.Sprintf(", the sender joins %d (GSO)", burst)
		}
		all = append(all, c)
	}
	// What is under way has room in the buffers that the servers ask for, and in the relays in
	// those that a system gives by default.
	add(load.Datagrams, 64, 1, 32, 256, false)
	add(load.Datagrams, 64, 1, 64, 512, true)
	add(load.Datagrams, 64, 1000, 1, 256, false)
	add(load.Datagrams, 1200, 1, 32, 256, false)
	add(load.Datagrams, 1200, 1, 50, 500, true)
	add(load.Datagrams, 1200, 1000, 1, 256, false)
	add(load.Datagrams, 1200, 1000, 16, 512, true)
	add(load.DatagramRelay, 64, 1, 32, 128, false)
	add(load.DatagramRelay, 64, 1000, 1, 128, false)
	add(load.DatagramRelay, 1200, 1, 16, 64, false)
	add(load.DatagramRelay, 1200, 1, 32, 64, true)
	add(load.DatagramRelay, 1200, 1000, 1, 64, false)
	return all
}

// runDatagrams runs them and writes datagrams.md, datagrams.json and datagrams.svg.
func (b *bench) runDatagrams(all []testCase, out string) error {
	all = slices.DeleteFunc(all, func(c testCase) bool { return !chosen(b.only, c.Name) })
	for i := range all {
		b.runCase(&all[i], time.Until(b.end)/time.Duration(len(all)-i))
	}
	if chosen(b.only, "quic") {
		b.runQUIC()
	}
	r := &b.report
	r.Took = time.Since(b.began).Round(time.Second).String()
	for _, v := range r.judge(datagramBounds()) {
		b.done("%-8s %s: %s, %s", v.word(), v.what, v.got, v.aim)
	}
	b.done("writing %s", out)
	if err := writeJSON(out, "datagrams.json", r.summary()); err != nil {
		return err
	}
	var panels []plot.Panel
	for i := range r.Cases {
		panels = append(panels, r.costs(r.Cases[i].Name))
	}
	if err := os.WriteFile(filepath.Join(out, "datagrams.svg"), plot.Figure("Datagrams: server CPU for each", panels), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "datagrams.md"), []byte(r.datagramsMarkdown()), 0o644)
}

// datagramBounds are the aims.
func datagramBounds() []bound {
	var all []bound
	for _, who := range []string{"weir-epoll", "weir-uring"} {
		add := func(what string, limit float64, atLeast bool, get figureOf) {
			all = append(all, bound{who + ": " + what, limit, atLeast, get, nil})
		}
		cost := func(what string, limit float64, name, to string) {
			all = append(all, bound{who + ": " + what, limit, false, costRatio(name, who, to), leastRatio(name, who, to)})
		}
		for _, w := range []struct{ name, what string }{
			{"echo-64-1-gso", "64 B, one flow, GSO"},
			{"echo-1200-1-gso", "1,200 B, one flow, GSO"},
			{"echo-1200-1000-gso", "1,200 B, 1,000 flows, GSO"},
		} {
			add(w.what+", datagrams for a CPU second to package net's", 4, true, inverse(costRatio(w.name, who, "std")))
		}
		for _, c := range datagramCases(0, 0) {
			if c.spec.Kind == load.Datagrams {
				cost(c.Title+", CPU to the C floor's", 1.1, c.Name, "c-gso")
			}
		}
		add("quic-go's transfer for a CPU second to net.UDPConn's", 1, true, quicRatio(who))
		add("system calls for a datagram, 1,200 B, one flow, GSO", 0.05, false, syscalls("echo-1200-1-gso", who))
		add("system calls for a datagram, 64 B, one flow, GSO", 0.05, false, syscalls("echo-64-1-gso", who))
		add("system calls for a datagram, 1,200 B, one flow", 0.2, false, syscalls("echo-1200-1", who))
		add("system calls for a datagram, 64 B, one flow", 0.2, false, syscalls("echo-64-1", who))
		for _, name := range []string{"echo-64-1", "echo-1200-1-gso", "echo-64-1000", "relay-64-1", "relay-64-1000"} {
			add("allocations for a datagram, "+name, 0.005, false, allocs(name, who))
		}
	}
	for _, who := range []string{"weir-epoll", "weir-uring", "cmd-weir"} {
		for _, name := range []string{"relay-64-1", "relay-1200-1", "relay-1200-1-gso"} {
			all = append(all, bound{who + ": system calls for a relayed datagram, " + name, 0.2, false, syscalls(name, who), nil})
		}
		for _, to := range []string{"socat", "nginx", "std"} {
			for _, name := range []string{"relay-64-1", "relay-64-1000", "relay-1200-1", "relay-1200-1000"} {
				all = append(all, bound{who + ": " + name + ", CPU to " + to + "'s", 1, false, costRatio(name, who, to), leastRatio(name, who, to)})
			}
		}
	}
	return all
}

const howDatagrams = `Each server is a process of its own on one CPU, the load another on the other
(` + "`bench/internal/load`" + `: sendmmsg and recvmmsg, every datagram numbered and compared). So many
datagrams are under way, and what comes back makes room for the next. The load never sleeps, so
that no server pays for waking it, as none would on another machine. CPU is the server
process's, user and system, from the scheduler's clock; over loopback it contains what the
kernel does to bring a datagram to the load's socket. Every round runs each peer once, back
and forth; figures are medians over the rounds, ratios are of figures of one round: within 8 %
is equal. A figure of the relays is for one datagram one way: two for each that comes back.
System calls were counted in a pass of their own under strace, which slows the server, so that
it is saturated, over at least 20,000 datagrams where the machine lets so many through in four
seconds. They contain those of Go's runtime, which come by the clock. "c-gso" is this tree's C server with recvmmsg, sendmmsg, GRO and GSO, the floor,
and "c-mmsg" the same without GRO and GSO; "std" is package net: one goroutine that reads
and writes, in the relay one more for each flow. Where the sender joins datagrams, the load's
own sockets take them joined too. Echo servers ask for 4 MiB to receive in; the relays, which
do not all know such a setting, have what the system gives. socat, which has a process for
each flow, gave some flows' datagrams to others when many began at once, and has one here.
quic-go's figures are those of ` + "`interop`" + `'s BenchmarkQUICTransfer.
`

const busyMachine = `**The machine was busy with other work in this run.** Turns are small then, so that each waits and
wakes for few datagrams, and few were counted: what is here says more about ratios to package net
than about those to the floor.
`

func (r *report) datagramsMarkdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# What weir's datagrams cost beside others\n\nWritten by `make -C bench datagrams`; the figures of every row are in `datagrams.json`. %s, took %s.\n\n", r.Date, r.Took)
	p("- %s, %d CPUs, %s of memory; load average before %s\n- %s\n", r.Machine.CPU, r.Machine.CPUs, r.Machine.Memory, r.Machine.Load, r.Machine.Kernel)
	for _, v := range r.Versions {
		p("- %s\n", v)
	}
	p("\n%s\n", howDatagrams)
	if load, err := strconv.ParseFloat(r.Machine.Load, 64); err == nil && load > float64(r.Machine.CPUs) {
		p("%s\n", busyMachine)
	}
	if len(r.Skipped) > 0 {
		p("Not in this run:\n\n")
		for _, s := range r.Skipped {
			p("- %s\n", s)
		}
		p("\n")
	}
	aimTable(p, r.judge(datagramBounds()))
	p("![Datagrams](datagrams.svg)\n\n")
	for i := range r.Cases {
		r.Cases[i].datagramTable(p)
	}
	r.quicTable(p)
	return b.String()
}

func (c *caseResult) datagramTable(p printer) {
	p("## %s\n\n| server | %s | least…most | to %s | to std | a second | system calls | allocations | lost |\n|---|---|---|---|---|---|---|---|---|\n", c.Title, c.Unit, c.Floor)
	for i := range c.Rows {
		w := &c.Rows[i]
		if w.Cost.none() {
			p("| %s | %s |\n", w.Peer, w.failure())
			continue
		}
		name := w.Peer
		if strings.Contains(name, "weir") {
			name = "**" + name + "**"
		}
		if f := w.failure(); f != "" {
			name += " (" + f + ")"
		}
		calls, allocs := "–", "–"
		if w.Counts != nil {
			calls, allocs = fixed3(w.Counts.Syscalls), fixed3(w.Counts.Allocs)
		}
		p("| %s | %s | %s…%s | %.2f | %.2f | %s | %s | %s | %s |\n", name, short(w.Cost.Median), short(w.Cost.Min), short(w.Cost.Max),
			w.ToFloor.Median, w.ToStd.Median, short(w.Rate), calls, allocs, w.lost())
	}
	p("\n")
}

// fixed3 writes a small count; below 0 there is none.
func fixed3(v float64) string {
	if v < 0 {
		return "–"
	}
	return fmt.Sprintf("%.3f", v)
}

// lost is how many of a thousand datagrams did not come back.
func (w *row) lost() string {
	var lost, all uint64
	for _, s := range w.good() {
		lost, all = lost+s.Result.Late, all+s.Result.Late+s.Result.Messages
	}
	if lost == 0 {
		return "0"
	}
	return fmt.Sprintf("%.2f ‰", 1000*float64(lost)/float64(all))
}

// aimTable shows what was aimed at and what came of it.
func aimTable(p printer, all []verdict) {
	met := 0
	for _, v := range all {
		if v.met {
			met++
		}
	}
	p("## Aims\n\n%d of %d met in this run.\n\n| | aim | measured | | least |\n|---|---|---|---|---|\n", met, len(all))
	for _, v := range all {
		word := v.word()
		if !v.met {
			word = "**" + word + "**"
		}
		p("| %s | %s | %s | %s | %s |\n", v.what, v.aim, v.got, word, v.least)
	}
	p("\n\"Measured\" is the median of ratios; \"least\" is the ratio of each server's cheapest round, to which other work on the machine has added least.\n\n")
}
