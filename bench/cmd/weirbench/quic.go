package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// quicRow is one kind of socket under quic-go.
type quicRow struct {
	Peer  string
	MBs   spread // that were sent for a second of CPU of both ends
	ToNet spread // of package net's in the same round
	Error string `json:",omitempty"`
}

var (
	quicPeers  = []string{"net", "weir-epoll", "weir-uring"}
	quicFigure = regexp.MustCompile(`([0-9.]+) MB/cpu-s`)
)

// runQUIC runs the benchmark of the module interop, each round in processes of its own.
func (b *bench) runQUIC() {
	rows := make([]quicRow, len(quicPeers))
	path := filepath.Join(b.tmp, "interop.test")
	build := exec.Command("go", "test", "-c", "-o", path, ".")
	build.Dir = filepath.Join(b.build.root, "..", "interop")
	if msg, err := build.CombinedOutput(); err != nil {
		b.report.skip(fmt.Sprintf("quic: %v: %s", err, msg))
		return
	}
	all := make([][]float64, len(rows))
	var ratios [][]float64
	for range rows {
		ratios = append(ratios, nil)
	}
	for round := range b.rounds {
		order := []int{0, 1, 2}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		got := make([]float64, len(rows))
		for _, i := range order {
			b.say("quic  round %d of %d  %s", round+1, b.rounds, quicPeers[i])
			v, err := quicOnce(path, quicPeers[i])
			if err != nil {
				rows[i].Error = err.Error()
				continue
			}
			got[i] = v
			all[i] = append(all[i], v)
		}
		for i, v := range got {
			if v > 0 && got[0] > 0 {
				ratios[i] = append(ratios[i], v/got[0])
			}
		}
	}
	b.done("quic")
	for i := range rows {
		w := &rows[i]
		w.Peer, w.MBs, w.ToNet = quicPeers[i], spreadOf(all[i]), spreadOf(ratios[i])
		b.done("    %-12s %s MB for a CPU second, x%.2f of net %s", w.Peer, short(w.MBs.Median), w.ToNet.Median, w.Error)
	}
	b.report.QUIC = rows
}

func quicOnce(path, peer string) (float64, error) {
	out, err := exec.Command(path, "-test.run", "^$", "-test.bench", "^BenchmarkQUICTransfer$/^"+peer+"$", "-test.benchtime", "500ms").CombinedOutput()
	m := quicFigure.FindSubmatch(out)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", peer, err, out)
	}
	if m == nil {
		return 0, fmt.Errorf("%s: no figure in %s", peer, out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// quicRatio is the transfer of a kind of socket to package net's.
func quicRatio(who string) figureOf {
	return func(r *report) (float64, bool) {
		for i := range r.QUIC {
			if w := &r.QUIC[i]; w.Peer == who && !w.ToNet.none() {
				return w.ToNet.Median, true
			}
		}
		return 0, false
	}
}

func (r *report) quicTable(p printer) {
	if len(r.QUIC) == 0 {
		return
	}
	p("## quic-go: 4 MiB a stream, both ends in one process\n\n| sockets | MB for a CPU second | least…most | to net |\n|---|---|---|---|\n")
	for i := range r.QUIC {
		w := &r.QUIC[i]
		if w.MBs.none() {
			p("| %s | %s |\n", w.Peer, w.Error)
			continue
		}
		p("| %s | %s | %s…%s | %.2f |\n", w.Peer, short(w.MBs.Median), short(w.MBs.Min), short(w.MBs.Max), w.ToNet.Median)
	}
	p("\n")
}
