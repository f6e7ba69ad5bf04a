package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A micro is a program that prints figures, ns for each operation by name.
type micro struct {
	name, title string
	prog, arg   string
	calls       [2]string // arguments whose runs differ only in awake posts
	perCall     float64   // how many
}

var micros = []micro{
	{name: "posts", title: "Posts from other goroutines", prog: "servers/micro", arg: "posts", calls: [2]string{"posts-awake", "posts-none"}, perCall: 200_000},
	{name: "timers", title: "A million timers", prog: "servers/micro", arg: "timers"},
	{name: "sim", title: "Simulated events", prog: "servers/sim"},
}

type microResult struct {
	Name, Title string
	Rows        []microRow
	// WakeCalls is write system calls for each post to a loop that is awake; for
	// posts only, -1 if it was not counted.
	WakeCalls float64
}

type microRow struct {
	Name  string
	Value spread
}

func (b *bench) runMicros(quick bool) {
	for _, m := range micros {
		if !chosen(b.only, m.name) {
			continue
		}
		if time.Now().After(b.end) {
			b.report.skip(m.name + ": not run, for lack of time")
			continue
		}
		rounds := b.rounds
		res, err := b.runMicro(m, rounds)
		if err != nil {
			b.report.skip(m.name + ": " + err.Error())
			b.done("%s: %v", m.name, err)
			continue
		}
		b.report.Micros = append(b.report.Micros, res)
		b.done("%s", m.name)
	}
}

func (b *bench) runMicro(m micro, rounds int) (microResult, error) {
	res := microResult{Name: m.name, Title: m.title, WakeCalls: -1}
	path, err := b.build.program(m.prog)
	if err != nil {
		return res, err
	}
	values := map[string][]float64{}
	for round := range rounds {
		b.say("%s  round %d of %d", m.name, round+1, rounds)
		p, err := spawn(-1, path, slices.DeleteFunc([]string{m.arg}, func(s string) bool { return s == "" })...)
		if err != nil {
			return res, err
		}
		var figures map[string]float64
		err = p.object(&figures, time.Minute)
		p.end()
		if err != nil {
			return res, err
		}
		for name, v := range figures {
			values[name] = append(values[name], v)
		}
	}
	for name, v := range values {
		res.Rows = append(res.Rows, microRow{name, spreadOf(v)})
	}
	slices.SortFunc(res.Rows, func(a, b microRow) int { return strings.Compare(b.Name, a.Name) })
	if m.calls[0] != "" {
		res.WakeCalls = b.wakeCalls(path, m)
	}
	return res, nil
}

// wakeCalls counts the writes, to eventfd or any, that posts to an awake loop
// add to a program that does the same without them.
func (b *bench) wakeCalls(path string, m micro) float64 {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return -1
	}
	var n [2]float64
	for i, arg := range m.calls {
		table := filepath.Join(b.tmp, "strace-"+arg)
		if err := exec.Command(strace, "-f", "-c", "-U", "name,calls", "-o", table, path, arg).Run(); err != nil {
			return -1
		}
		_, byName, err := straceTable(table, 1)
		if err != nil {
			return -1
		}
		n[i] = byName["write"]
	}
	return max(n[0]-n[1], 0) / m.perCall
}

// find returns a row's value.
func (m *microResult) find(name string) (spread, bool) {
	for _, r := range m.Rows {
		if r.Name == name {
			return r.Value, true
		}
	}
	return spread{}, false
}
