package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weir-io/weir/bench/internal/plot"
)

// write draws the scenes and says what they show.
func write(out string, scenes []*scene) error {
	alone, tcp, both, two := scenes[0], scenes[1], scenes[2], scenes[3]
	var charts []plot.Chart
	for _, s := range scenes {
		rates := plot.Chart{Title: s.Title, Unit: "Mbit/s", Step: step.Seconds(), Most: mbit}
		for _, k := range []string{"utp 0", "utp 1", "tcp 0"} {
			if v := s.Rates[k]; v != nil {
				kind := map[string]plot.Kind{"utp 0": plot.Ours, "utp 1": plot.Floor, "tcp 0": plot.Peer}[k]
				label := map[string]string{"utp 0": "uTP", "utp 1": "the other", "tcp 0": "TCP"}[k]
				rates.Lines = append(rates.Lines, plot.Line{Label: label, Kind: kind, Values: v})
			}
		}
		charts = append(charts, rates, plot.Chart{
			Title: "", Unit: "ms that wait in the queue", Step: step.Seconds(), Most: holds, Mark: 100,
			Lines: []plot.Line{{Label: "queue", Kind: plot.Ours, Values: s.Queue}},
		})
	}
	if err := os.WriteFile(filepath.Join(out, "ledbat.svg"), plot.Lines("uTP on a line of 20 Mbit/s whose queue holds 400 ms", charts), 0o644); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# uTP beside TCP\n\nWritten by `go run ./cmd/utpline` in `bench` (root; ip and tc), %s. %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), machine())
	fmt.Fprintf(&b, "A line of %d Mbit/s (tbf) in a network namespace between two others, with a queue of %d ms and\nno other delay. TCP is the kernel's, with cubic. Rates are of payload, in Mbit/s.\n\n", mbit, holds)
	line := tcp.mean(tcp.Rates["tcp 0"], 10, 40)
	fmt.Fprintf(&b, "| scene | seconds | uTP | the other uTP | TCP | queue, ms |\n|---|---|---|---|---|---|\n")
	row := func(s *scene, from, until float64) {
		cell := func(k string) string {
			if s.Rates[k] == nil {
				return "–"
			}
			return fmt.Sprintf("%.1f", s.mean(s.Rates[k], from, until))
		}
		fmt.Fprintf(&b, "| %s | %g to %g | %s | %s | %s | %.0f |\n", s.Title, from, until, cell("utp 0"), cell("utp 1"), cell("tcp 0"), s.mean(s.Queue, from, until))
	}
	row(alone, 10, 40)
	row(tcp, 10, 40)
	row(both, 10, 20)
	row(both, 30, 60)
	row(both, 70, 80)
	row(two, 20, 60)
	beside := both.mean(both.Rates["tcp 0"], 30, 60)
	x, y := two.mean(two.Rates["utp 0"], 20, 60), two.mean(two.Rates["utp 1"], 20, 60)
	fmt.Fprintf(&b, "\n- Alone, uTP has %.0f %% of what TCP has alone, and keeps %.0f ms in the queue (its target is 100).\n", 100*alone.mean(alone.Rates["utp 0"], 10, 40)/line, alone.mean(alone.Queue, 10, 40))
	fmt.Fprintf(&b, "- Beside uTP, TCP keeps %.0f %% of its rate.\n", 100*beside/line)
	fmt.Fprintf(&b, "- Two that start together share the line %.2f to 1.\n\n![the rates and the queue over time](ledbat.svg)\n", max(x, y)/min(x, y))
	return os.WriteFile(filepath.Join(out, "ledbat.md"), []byte(b.String()), 0o644)
}

// machine is what the run was made on.
func machine() string {
	version, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return fmt.Sprintf("Linux %s; load %s after.", strings.TrimSpace(string(version)), strings.Fields(string(load))[0])
}
