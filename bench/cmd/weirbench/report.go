package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is everything that a run found. samples.json holds all of it, and
// results.json has everything except the samples.
type report struct {
	Date     string
	Took     string
	Quick    bool
	Machine  machine
	Versions []string
	Skipped  []string // peers and cases that are not in it, and why
	Cases    []caseResult
	Micros   []microResult
	QUIC     []quicRow `json:",omitempty"`
}

type machine struct {
	CPU    string
	CPUs   int
	Kernel string
	Memory string
	Load   string // the load average before the run: what else the machine did
}

type caseResult struct {
	Name, Title, Unit, Floor string
	Rows                     []row
	c                        *testCase
}

// A row is one peer in one case.
type row struct {
	Peer    string
	Cost    spread  // in the case's unit
	ToFloor spread  // the cost relative to the floor's in the same round
	ToStd   spread  // of the standard library's
	Rate    float64 // messages a second, median
	MBs     float64 // MB/s (10^6), median
	P50     float64 // µs, median
	P99     float64
	P999    float64
	Memory  *memory
	Counts  *counts
	Samples []sample `json:",omitempty"`
	Failed  string   `json:",omitempty"` // in a summary: which rounds did
}

// spread is a median with the least and the most.
type spread struct{ Median, Min, Max float64 }

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{}
	}
	v = slices.Clone(v)
	slices.Sort(v)
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (m + v[len(v)/2-1]) / 2
	}
	return spread{m, v[0], v[len(v)-1]}
}

func (s spread) none() bool { return s == spread{} }

// good are the samples that have figures, by round.
func (r *row) good() map[int]sample {
	m := map[int]sample{}
	for _, s := range r.Samples {
		if s.Error == "" {
			m[s.Round] = s
		}
	}
	return m
}

// std is the standard library's row in the two kinds of cases.
func (c *testCase) std() string {
	if c.relays() && !c.datagrams() {
		return "go-iocopy"
	}
	return "std"
}

// sum computes the summary of the samples.
func (r *caseResult) sum() {
	find := func(name string) map[int]sample {
		for i := range r.Rows {
			if r.Rows[i].Peer == name {
				return r.Rows[i].good()
			}
		}
		return nil
	}
	floor, std := find(r.Floor), find(r.c.std())
	for i := range r.Rows {
		row := &r.Rows[i]
		var cost, toFloor, toStd, rate, mbs, p50, p99, p999 []float64
		var mem []memory
		for round, s := range row.good() {
			v := r.c.cost(s)
			cost = append(cost, v)
			if f, ok := floor[round]; ok {
				toFloor = append(toFloor, v/r.c.cost(f))
			}
			if f, ok := std[round]; ok {
				toStd = append(toStd, v/r.c.cost(f))
			}
			if s.Result.Seconds > 0 { // otherwise nothing was counted
				rate = append(rate, float64(s.Result.Messages)/s.Result.Seconds)
				mbs = append(mbs, float64(s.Result.Bytes)/s.Result.Seconds/1e6)
			}
			p50 = append(p50, s.Result.P50/1e3)
			p99 = append(p99, s.Result.P99/1e3)
			p999 = append(p999, s.Result.P999/1e3)
			if s.Memory != nil {
				mem = append(mem, *s.Memory)
			}
		}
		row.Cost, row.ToFloor, row.ToStd = spreadOf(cost), spreadOf(toFloor), spreadOf(toStd)
		row.Rate, row.MBs = spreadOf(rate).Median, spreadOf(mbs).Median
		row.P50, row.P99, row.P999 = spreadOf(p50).Median, spreadOf(p99).Median, spreadOf(p999).Median
		if len(mem) > 0 {
			pick := func(f func(memory) float64) float64 {
				var v []float64
				for _, m := range mem {
					v = append(v, f(m))
				}
				return spreadOf(v).Median
			}
			row.Memory = &memory{
				Heap: pick(func(m memory) float64 { return m.Heap }), Stack: pick(func(m memory) float64 { return m.Stack }),
				RSS: pick(func(m memory) float64 { return m.RSS }), Kernel: pick(func(m memory) float64 { return m.Kernel }),
			}
		}
	}
}

// failure is the first error among the samples.
func (r *row) failure() string {
	n, first := 0, ""
	for _, s := range r.Samples {
		if s.Error != "" {
			if n++; first == "" {
				first = s.Error
			}
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d rounds failed: %s", n, len(r.Samples), first)
}

// summary is the report without its samples.
func (r *report) summary() *report {
	short := *r
	short.Cases = slices.Clone(r.Cases)
	for i := range short.Cases {
		c := &short.Cases[i]
		c.Rows = slices.Clone(c.Rows)
		for k := range c.Rows {
			w := &c.Rows[k]
			w.Failed = w.failure()
			w.Samples = nil
		}
	}
	return &short
}

// failure says what failed or was left out in the run, if anything.
func (r *report) failure() error {
	var all []error
	for _, s := range r.Skipped {
		all = append(all, errors.New(s))
	}
	for i := range r.Cases {
		for k := range r.Cases[i].Rows {
			if w := &r.Cases[i].Rows[k]; w.failure() != "" {
				all = append(all, fmt.Errorf("%s, %s: %s", r.Cases[i].Name, w.Peer, w.failure()))
			}
		}
	}
	return errors.Join(all...)
}

// brief is a row for the terminal.
func (r *row) brief(c *testCase) string {
	if r.Cost.none() {
		return fmt.Sprintf("%-18s %s", r.Peer, r.failure())
	}
	s := fmt.Sprintf("%-18s %8.3f (%.3f..%.3f) %s  x%.2f of %s, x%.2f of %s  p50 %.0f p99 %.0f µs",
		r.Peer, r.Cost.Median, r.Cost.Min, r.Cost.Max, c.unit, r.ToFloor.Median, c.floor(), r.ToStd.Median, c.std(), r.P50, r.P99)
	if c.unit == perGiB {
		s += fmt.Sprintf("  %.0f MB/s", r.MBs)
	} else {
		s += fmt.Sprintf("  %.0f/s", r.Rate)
	}
	if r.Counts != nil {
		s += fmt.Sprintf("  calls %s allocs %s", fixed(r.Counts.Syscalls), fixed(r.Counts.Allocs))
	}
	if r.Memory != nil {
		s += fmt.Sprintf("  heap+stack %.0f rss %.0f kernel %.0f", r.Memory.Heap+r.Memory.Stack, r.Memory.RSS, r.Memory.Kernel)
	}
	if f := r.failure(); f != "" {
		s += "  " + f
	}
	return s
}

// fixed writes a count for each message; below 0 there is none.
func fixed(v float64) string {
	if v < 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}

// short writes a figure with three significant digits; one that is no number is none.
func short(v float64) string {
	switch a := math.Abs(v); {
	case math.IsInf(v, 0) || math.IsNaN(v):
		return "–"
	case v == 0:
		return "0"
	case a >= 1000:
		s := fmt.Sprintf("%.0f", v)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

func (r *report) describe(b *bench, quick bool) {
	r.Date = time.Now().UTC().Format("2006-01-02 15:04 UTC")
	r.Quick = quick
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Machine.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	r.Machine.CPUs = runtime.NumCPU()
	r.Machine.CPU = field("/proc/cpuinfo", "model name")
	r.Machine.Memory = field("/proc/meminfo", "MemTotal")
	if l, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.Machine.Load, _, _ = strings.Cut(string(l), " ")
	}
	r.Versions = append(r.Versions, "weir "+first("git", "-C", b.build.root, "describe", "--always", "--dirty"), runtime.Version())
	mods, err := exec.Command("go", "list", "-C", b.build.root, "-m", "-f", "{{.Path}} {{.Version}}",
		"github.com/panjf2000/gnet/v2", "github.com/lesismal/nbio", "github.com/cloudwego/netpoll", "github.com/tidwall/evio").Output()
	if err == nil {
		r.Versions = append(r.Versions, strings.Split(strings.TrimSpace(string(mods)), "\n")...)
	}
	for _, cmd := range [][]string{{"cc", "--version"}, {"haproxy", "-v"}, {"nginx", "-v"}, {"socat", "-V"}, {"strace", "-V"}} {
		if v := first(cmd[0], cmd[1:]...); v != "" {
			r.Versions = append(r.Versions, v)
		}
	}
}

// first is the first line with a version that a command prints, or nothing.
func first(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return ""
	}
	for _, l := range strings.Split(string(out), "\n") {
		if strings.ContainsAny(l, "0123456789") {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

// field finds "name : value" in a file of /proc.
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for _, l := range strings.Split(string(text), "\n") {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
