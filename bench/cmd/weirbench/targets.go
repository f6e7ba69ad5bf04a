package main

import (
	"fmt"
	"strings"
)

// A verdict is one of the targets and this run's result for it.
type verdict struct {
	what, aim, got, least string
	met                   bool
}

// A bound is a target: a figure that should be at most, or at least, a limit.
type bound struct {
	what    string
	limit   float64
	atLeast bool
	get     figureOf
	least   figureOf // the same for the cheapest rounds only; may be nil
}

// figureOf finds a figure in a report, if it was measured.
type figureOf func(*report) (float64, bool)

// leastRatio is costRatio of each server's cheapest round. Other work on a
// machine only ever adds to a cost, so on a busy machine this says more. There is none if the
// other's cheapest round took less time than the clock of processes can tell.
func leastRatio(name, who, to string) figureOf {
	return func(r *report) (float64, bool) {
		_, one := r.find(name, who)
		_, other := r.find(name, to)
		if one == nil || other == nil || one.Cost.none() || other.Cost.none() || other.Cost.Min == 0 {
			return 0, false
		}
		return one.Cost.Min / other.Cost.Min, true
	}
}

// costRatio is a peer's cost relative to another's, median over rounds.
func costRatio(name, who, to string) figureOf {
	return func(r *report) (float64, bool) {
		c, row := r.find(name, who)
		if row == nil || row.Cost.none() {
			return 0, false
		}
		if to == c.c.floor() {
			return row.ToFloor.Median, !row.ToFloor.none()
		}
		if to == c.c.std() {
			return row.ToStd.Median, !row.ToStd.none()
		}
		other := c.row(to)
		if other == nil {
			return 0, false
		}
		return c.ratio(row, other)
	}
}

// ratio is the cost of one row relative to another's: the median over the
// rounds that both have.
func (c *caseResult) ratio(one, other *row) (float64, bool) {
	var v []float64
	theirs := other.good()
	for round, s := range one.good() {
		if o, ok := theirs[round]; ok {
			v = append(v, c.c.cost(s)/c.c.cost(o))
		}
	}
	return spreadOf(v).Median, len(v) > 0
}

func syscalls(name, who string) figureOf {
	return func(r *report) (float64, bool) {
		_, row := r.find(name, who)
		if row == nil || row.Counts == nil || row.Counts.Syscalls < 0 {
			return 0, false
		}
		return row.Counts.Syscalls, true
	}
}

// syscallRatio is a peer's system calls relative to another's.
func syscallRatio(name, who, to string) figureOf {
	return func(r *report) (float64, bool) {
		a, ok := syscalls(name, who)(r)
		b, also := syscalls(name, to)(r)
		return a / b, ok && also && b > 0
	}
}

// medianRatio is a peer's median latency relative to another's, each the median over its
// rounds.
func medianRatio(name, who, to string) figureOf {
	return func(r *report) (float64, bool) {
		_, a := r.find(name, who)
		_, b := r.find(name, to)
		if a == nil || b == nil || a.Cost.none() || b.Cost.none() || b.P50 == 0 {
			return 0, false
		}
		return a.P50 / b.P50, true
	}
}

// idleBytes is what the process grows by for an idle relayed connection.
func idleBytes(who string) figureOf {
	return func(r *report) (float64, bool) {
		_, row := r.find("relay-idle", who)
		if row == nil || row.Cost.none() {
			return 0, false
		}
		return row.Cost.Median, true
	}
}

func allocs(name, who string) figureOf {
	return func(r *report) (float64, bool) {
		_, row := r.find(name, who)
		if row == nil || row.Counts == nil || row.Counts.Allocs < 0 {
			return 0, false
		}
		return row.Counts.Allocs, true
	}
}

func userMemory(who string) figureOf {
	return func(r *report) (float64, bool) {
		_, row := r.find("echo-9000", who)
		if row == nil || row.Memory == nil {
			return 0, false
		}
		return row.Memory.Heap + row.Memory.Stack, true
	}
}

func microValue(name, row string) figureOf {
	return func(r *report) (float64, bool) {
		for i := range r.Micros {
			if r.Micros[i].Name == name {
				v, ok := r.Micros[i].find(row)
				return v.Median, ok
			}
		}
		return 0, false
	}
}

func inverse(f figureOf) figureOf {
	return func(r *report) (float64, bool) {
		v, ok := f(r)
		return 1 / v, ok && v > 0
	}
}

// bounds are the targets that weir was given.
func bounds() []bound {
	var all []bound
	for _, who := range []string{"weir-epoll", "weir-epoll-et", "weir-uring"} {
		add := func(what string, limit float64, atLeast bool, get figureOf) {
			all = append(all, bound{who + ": " + what, limit, atLeast, get, nil})
		}
		addCost := func(what string, limit float64, name, to string) {
			all = append(all, bound{who + ": " + what, limit, false, costRatio(name, who, to), leastRatio(name, who, to)})
		}
		addCost("echo, 1 connection, CPU to C epoll's", 1.0, "echo-1", "c-epoll")
		addCost("echo, 64 connections, CPU to C epoll's", 1.05, "echo-64", "c-epoll")
		addCost("echo, 1,000 connections, CPU to C epoll's", 1.05, "echo-1000", "c-epoll")
		addCost("echo, 64 connections, CPU to the standard library's", 0.85, "echo-64", "std")
		addCost("echo, 1,000 connections, CPU to the standard library's", 0.65, "echo-1000", "std")
		add("pipelined, messages for a CPU second to the standard library's", 3, true, inverse(costRatio("frames", who, "std")))
		limit := 2.05
		if who == "weir-uring" {
			limit = 0.1
		}
		add("system calls for a message, 1,000 connections", limit, false, syscalls("echo-1000", who))
		add("allocations for a message, 1,000 connections", 0.005, false, allocs("echo-1000", who))
		add("user memory of an idle connection, bytes", 512, false, userMemory(who))
	}
	for _, who := range []string{"weir-epoll-splice", "weir-uring-splice"} {
		for _, p := range []struct {
			to    string
			limit float64
		}{{"c-splice-1m", 1.1}, {"go-iocopy", 1}, {"haproxy-splice", 1}, {"haproxy", 1}, {"nginx", 1}, {"socat-64k", 1}, {"socat", 1}} {
			all = append(all, bound{who + ": relay, CPU for a GiB to " + p.to + "'s", p.limit, false, costRatio("relay", who, p.to), leastRatio("relay", who, p.to)})
		}
	}
	for _, name := range []string{"sessions", "many-relays"} {
		for _, who := range []string{"weir-epoll-copy", "cmd-weir"} {
			all = append(
				all,
				bound{who + ": " + name + ", CPU to haproxy's", 1, false, costRatio(name, who, "haproxy"), leastRatio(name, who, "haproxy")},
				bound{who + ": " + name + ", system calls to haproxy's", 1, false, syscallRatio(name, who, "haproxy"), nil},
			)
		}
	}
	all = append(all, bound{"cmd-weir: median of a session to haproxy's", 1, false, medianRatio("sessions", "cmd-weir", "haproxy"), nil})
	for _, p := range []struct {
		who   string
		limit float64
	}{{"weir-epoll-copy", 2500}, {"cmd-weir", 2500}} {
		all = append(all, bound{p.who + ": memory of an idle relayed connection, bytes of the process", p.limit, false, idleBytes(p.who), nil})
	}
	return append(
		all,
		bound{"a million timers: set and stop, ns", 60, false, microValue("timers", "weir: set and stop, a million pending"), nil},
		bound{"a million timers: random reset, ns", 300, false, microValue("timers", "weir: random reset, a million pending"), nil},
		bound{"a post, uncontended, ns", 150, false, microValue("posts", "post, loop awake, uncontended"), nil},
		bound{"wake-up calls for a post while the loop is awake", 0.001, false, func(r *report) (float64, bool) {
			for _, m := range r.Micros {
				if m.Name == "posts" && m.WakeCalls >= 0 {
					return m.WakeCalls, true
				}
			}
			return 0, false
		}, nil},
		bound{"simulated events a second, one core", 1e6, true, func(r *report) (float64, bool) {
			v, ok := microValue("sim", "event")(r)
			return 1e9 / v, ok && v > 0
		}, nil},
	)
}

// verdicts compares the run with the targets; those that it did not measure are
// left out.
func (r *report) verdicts() []verdict { return r.judge(bounds()) }

func (v verdict) word() string {
	if v.met {
		return "met"
	}
	return "missed"
}

func (r *report) judge(bounds []bound) []verdict {
	var all []verdict
	for _, b := range bounds {
		v, ok := b.get(r)
		if !ok {
			continue
		}
		sign, met := "≤", v <= b.limit
		if b.atLeast {
			sign, met = "≥", v >= b.limit
		}
		limit := strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", b.limit), "0"), ".")
		if b.limit >= 1000 {
			limit = short(b.limit)
		}
		w := verdict{what: b.what, aim: sign + " " + limit, got: short(v), met: met}
		if b.least != nil {
			if v, ok := b.least(r); ok {
				w.least = short(v)
			}
		}
		all = append(all, w)
	}
	return all
}

func (r *report) find(name, who string) (*caseResult, *row) {
	for i := range r.Cases {
		if r.Cases[i].Name == name {
			return &r.Cases[i], r.Cases[i].row(who)
		}
	}
	return nil, nil
}

func (c *caseResult) row(who string) *row {
	for i := range c.Rows {
		if c.Rows[i].Peer == who {
			return &c.Rows[i]
		}
	}
	return nil
}
