package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/weir-io/weir/bench/internal/plot"
)

// tlsCases lists everything in the order in which it is run.
func tlsCases(rounds int) []tlsCase {
	const warm, run = 100 * time.Millisecond, 400 * time.Millisecond
	perGB := func(s tlsSample) float64 { return s.Result.ServerCPU / (float64(s.Result.Bytes) / 1e9) }
	perSession := func(s tlsSample) float64 { return s.Result.ServerCPU / float64(s.Result.Count) * 1e6 }
	rss := func(s tlsSample) float64 { return s.Memory.RSS }
	own := func(s tlsSample) float64 { return s.Memory.Heap + s.Memory.Stack }
	return []tlsCase{
		{Name: "up", Title: "Relay that ends TLS, one stream to the backend", Unit: "CPU, s per GB", spec: tlsSpec{Kind: "up", Warm: warm, Run: run}, peers: append(slices.Clip(tlsRelays), tlsFloor), rounds: rounds, cost: perGB, run: tlsRelay},
		{Name: "down", Title: "The same, from the backend to the client", Unit: "CPU, s per GB", spec: tlsSpec{Kind: "down", Warm: warm, Run: run}, peers: tlsRelays, rounds: rounds, cost: perGB, run: tlsRelay},
		{Name: "both", Title: "Both ways at once", Unit: "CPU, s per GB", spec: tlsSpec{Kind: "both", Warm: warm, Run: run}, peers: tlsRelays, rounds: rounds, cost: perGB, run: tlsRelay},
		{Name: "sessions", Title: "Sessions through it, 16 at a time: connect, whole handshake, 64 B there and back, close", Unit: "CPU, µs per session", spec: tlsSpec{Kind: "sessions", Conns: 16, Warm: warm, Run: run}, peers: tlsRelays, rounds: rounds, cost: perSession, run: tlsRelay},
		{Name: "resumed", Title: "The same with handshakes that resume a session", Unit: "CPU, µs per session", spec: tlsSpec{Kind: "resumed", Conns: 16, Warm: warm, Run: run}, peers: tlsRelays, rounds: rounds, cost: perSession, run: tlsRelay},
		{Name: "relay-idle", Title: "An idle connection through it: the memory that the process grows by from the 300th to the 3,000th", Unit: "growth of the process, bytes", spec: tlsSpec{Kind: "idle", Conns: idleConns, Few: idleConns / 10}, peers: tlsRelays, rounds: 1, cost: rss, run: tlsIdle},
		{Name: "idle-echo", Title: "An idle connection to an echo server", Unit: "heap and stacks, bytes", spec: tlsSpec{Kind: "idle", Conns: 600, Few: 100}, peers: tlsEchoes, rounds: 2, cost: own, run: tlsIdle},
		{Name: "stall", Title: "5,000 handshakes that stall: p99 of echoes on other connections, to the quiet one", Unit: "times the quiet p99", spec: tlsSpec{Kind: "stall", Conns: 5000, Nice: 19}, peers: tlsEchoes, rounds: min(rounds, 3), cost: func(s tlsSample) float64 { return s.Stall.ratio() }, run: tlsStall},
	}
}

// runTLS runs them and writes tls.md, tls.json and tls.svg.
func (b *bench) runTLS(out string) error {
	if err := tlsCertify(b.tmp); err != nil {
		return err
	}
	var r tlsReport
	for _, c := range tlsCases(b.rounds) {
		if !chosen(b.only, c.Name) {
			continue
		}
		if time.Now().After(b.end) {
			r.skip(c.Name + ": not run, for lack of time")
			continue
		}
		r.Cases = append(r.Cases, b.runTLSCase(&c, &r))
	}
	r.Date, r.Machine, r.Versions = b.report.Date, b.report.Machine, b.report.Versions
	for _, cmd := range [][]string{{"openssl", "version"}, {"dpkg-query", "-W", "-f", "${Package} ${Version}", "stunnel4"}} {
		if v := first(cmd[0], cmd[1:]...); v != "" {
			r.Versions = append(r.Versions, v)
		}
	}
	r.Took = time.Since(b.began).Round(time.Second).String()
	b.done("writing %s", out)
	return r.write(out)
}

func (r *tlsReport) skip(why string) {
	if !slices.Contains(r.Skipped, why) {
		r.Skipped = append(r.Skipped, why)
	}
}

func (b *bench) runTLSCase(c *tlsCase, r *tlsReport) tlsCaseResult {
	res := tlsCaseResult{Name: c.Name, Title: c.Title, Unit: c.Unit}
	var peers []tlsPeer
	for _, p := range c.peers {
		if !chosen(b.peers, p.name) && p.name != "std" {
			continue
		}
		if _, err := b.build.path(peer{build: p.build, prog: p.prog}); err != nil {
			r.skip(p.name + ": " + err.Error())
			continue
		}
		peers = append(peers, p)
		res.Rows = append(res.Rows, tlsRow{Peer: p.name})
	}
	for round := range c.rounds {
		order := make([]int, len(peers))
		for i := range order {
			order[i] = i
		}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, i := range order {
			b.say("tls %s  round %d of %d  %s", c.Name, round+1, c.rounds, peers[i].name)
			s := tlsSample{Round: round}
			if err := c.run(b, c, peers[i], &s); err != nil {
				s.Error = err.Error()
			}
			res.Rows[i].Samples = append(res.Rows[i].Samples, s)
		}
	}
	res.sum(c)
	b.done("tls %s: %s", c.Name, c.Unit)
	for i := range res.Rows {
		fmt.Fprintf(os.Stderr, "         %s\n", res.Rows[i].brief())
	}
	return res
}

func (w *tlsRow) good() map[int]tlsSample {
	m := map[int]tlsSample{}
	for _, s := range w.Samples {
		if s.Error == "" {
			m[s.Round] = s
		}
	}
	return m
}

// sum computes the summary of the samples; the first row is the standard
// library's.
func (r *tlsCaseResult) sum(c *tlsCase) {
	std := r.Rows[0].good()
	for i := range r.Rows {
		var cost, toStd []float64
		for round, s := range r.Rows[i].good() {
			v := c.cost(s)
			cost = append(cost, v)
			if o, ok := std[round]; ok {
				toStd = append(toStd, v/c.cost(o))
			}
		}
		r.Rows[i].Cost, r.Rows[i].ToStd = spreadOf(cost), spreadOf(toStd)
	}
}

// middle is the median over the rounds of a figure.
func (w *tlsRow) middle(f func(tlsSample) float64) float64 {
	var v []float64
	for _, s := range w.good() {
		v = append(v, f(s))
	}
	return spreadOf(v).Median
}

func (w *tlsRow) failure() string {
	for _, s := range w.Samples {
		if s.Error != "" {
			return s.Error
		}
	}
	return ""
}

func (w *tlsRow) brief() string {
	s := fmt.Sprintf("%-21s %10.3f (%.3f..%.3f)  x%.2f of std", w.Peer, w.Cost.Median, w.Cost.Min, w.Cost.Max, w.ToStd.Median)
	if st := w.stalled(); st != nil {
		s += fmt.Sprintf("  p50/p99 quiet %.0f/%.0f flood %.0f/%.0f held %.0f/%.0f µs, max %.0f; %.0f B rss, %.0f B heap, opened in %.1f s",
			st.Quiet.P50/1e3, st.Quiet.P99/1e3, st.Flood.P50/1e3, st.Flood.P99/1e3, st.Held.P50/1e3, st.Held.P99/1e3, st.Flood.Max/1e3, st.RSS, st.Heap, st.Seconds)
	}
	if f := w.failure(); f != "" {
		s += "  " + f
	}
	return s
}

// stalled is the medians of what Stall holds, each by itself.
func (w *tlsRow) stalled() *tlsStalled {
	var some bool
	for _, s := range w.good() {
		some = some || s.Stall != nil
	}
	if !some {
		return nil
	}
	get := func(f func(*tlsStalled) float64) float64 {
		return w.middle(func(s tlsSample) float64 { return f(s.Stall) })
	}
	part := func(f func(*tlsStalled) *tlsResult) tlsResult {
		return tlsResult{
			P50: get(func(s *tlsStalled) float64 { return f(s).P50 }),
			P99: get(func(s *tlsStalled) float64 { return f(s).P99 }),
			Max: get(func(s *tlsStalled) float64 { return f(s).Max }),
		}
	}
	return &tlsStalled{
		Quiet: part(func(s *tlsStalled) *tlsResult { return &s.Quiet }),
		Flood: part(func(s *tlsStalled) *tlsResult { return &s.Flood }),
		Held:  part(func(s *tlsStalled) *tlsResult { return &s.Held }),
		RSS:   get(func(s *tlsStalled) float64 { return s.RSS }), Heap: get(func(s *tlsStalled) float64 { return s.Heap }),
		Seconds: get(func(s *tlsStalled) float64 { return s.Seconds }),
	}
}

func (r *tlsReport) find(name, peer string) *tlsRow {
	for i := range r.Cases {
		for k := range r.Cases[i].Rows {
			if r.Cases[i].Name == name && r.Cases[i].Rows[k].Peer == peer {
				return &r.Cases[i].Rows[k]
			}
		}
	}
	return nil
}

// verdicts compares the run with the targets.
func (r *tlsReport) verdicts() []verdict {
	var all []verdict
	add := func(name, who, what string, limit float64, get func(*tlsRow) float64) {
		if w := r.find(name, who); w != nil && !w.Cost.none() {
			v := get(w)
			all = append(all, verdict{what: who + ": " + what, aim: "≤ " + short(limit), got: short(v), met: v <= limit})
		}
	}
	toStd := func(w *tlsRow) float64 { return w.ToStd.Median }
	for _, who := range []string{"weir-epoll", "weir-uring", "cmd-weir"} {
		add("up", who, "relay, CPU for a GB up to the standard library's", 0.8, toStd)
		add("down", who, "relay, CPU for a GB down to the standard library's", 0.8, toStd)
		add("both", who, "relay, CPU for a GB both ways to the standard library's", 0.8, toStd)
	}
	for _, who := range []string{"weir-epoll", "cmd-weir"} {
		add("sessions", who, "session with a full handshake, CPU to the standard library's", 1, toStd)
		add("resumed", who, "session with a resumed one, CPU to the standard library's", 1, toStd)
	}
	add("relay-idle", "cmd-weir", "memory of an idle connection, bytes", 15e3, func(w *tlsRow) float64 { return w.Cost.Median })
	for _, who := range []string{"weir-epoll", "weir-uring"} {
		add("idle-echo", who, "memory of an idle connection to a goroutine's", 0.55, toStd)
	}
	for _, p := range tlsEchoes[1:] {
		add("stall", p.name, "p99 of others while 5,000 handshakes stall, to the quiet one", 10, func(w *tlsRow) float64 { return w.Cost.Median })
	}
	return all
}

const howTLS = `Each server is a process of its own on one CPU, the load another on the other;
the client is the standard library's in every case. Rounds alternate in order, and
ratios are of figures of one round: differences within 8 % do not count. CPU is the server
process's, from the scheduler's clock. "std" is blocking crypto/tls, a goroutine
for each direction (io.Copy). All agree on TLS 1.3; the suites that a peer chose
are in ` + "`tls.json`" + `. "floor" is not a TLS
server: it is a thread that blocks in read and writev and opens each record in place, the
least that a relay in Go can do. In the last case four connections send 64 bytes and take them
back, over and over, while another process, of the lowest priority, opens 5,000
connections, sends a ClientHello on each and nothing more. "Held" is the second after
that, when all of them are open; weir ends those that occupy places that others
wait for.
`

func (r *tlsReport) markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# What weir's TLS costs beside others\n\nWritten by `make -C bench tls`; every figure is in `tls.json`. %s, took %s.\n\n", r.Date, r.Took)
	p("- %s, %d CPUs, %s of memory; load average before %s\n- %s\n", r.Machine.CPU, r.Machine.CPUs, r.Machine.Memory, r.Machine.Load, r.Machine.Kernel)
	for _, v := range r.Versions {
		p("- %s\n", v)
	}
	p("\n%s\n", howTLS)
	for _, s := range r.Skipped {
		p("Not in this run: %s\n\n", s)
	}
	if all := r.verdicts(); len(all) > 0 {
		p("## Aims\n\n| what | aim | got | |\n|---|---|---|---|\n")
		for _, v := range all {
			p("| %s | %s | %s | %s |\n", v.what, v.aim, v.got, map[bool]string{true: "met", false: "**missed**"}[v.met])
		}
		p("\n")
	}
	p("![TLS](tls.svg)\n\n")
	for i := range r.Cases {
		r.Cases[i].table(p)
	}
	return b.String()
}

func (r *tlsCaseResult) table(p printer) {
	p("## %s\n\n", r.Title)
	switch r.Name {
	case "stall":
		p("| server | p99 flood to quiet | quiet p50, p99, µs | flood | held | longest | RSS for each, B | heap and stacks |\n|---|---|---|---|---|---|---|---|\n")
	case "up", "down", "both":
		p("| server | %s | to std | MB/s |\n|---|---|---|---|\n", r.Unit)
	case "sessions", "resumed":
		p("| server | %s | to std | a second | p50, p99, µs |\n|---|---|---|---|---|\n", r.Unit)
	default:
		p("| server | %s | to std |\n|---|---|---|\n", r.Unit)
	}
	for i := range r.Rows {
		w := &r.Rows[i]
		if w.Cost.none() {
			p("| %s | failed: %s |\n", w.Peer, w.failure())
			continue
		}
		p("| %s | %s (%s–%s)", w.Peer, short(w.Cost.Median), short(w.Cost.Min), short(w.Cost.Max))
		pair := func(t tlsResult) string { return fmt.Sprintf("%.0f, %.0f", t.P50/1e3, t.P99/1e3) }
		switch r.Name {
		case "stall":
			st := w.stalled()
			p(" | %s | %s | %s | %.0f | %.0f | %.0f", pair(st.Quiet), pair(st.Flood), pair(st.Held), st.Flood.Max/1e3, st.RSS, st.Heap)
		case "up", "down", "both":
			p(" | %.2f | %.0f", w.ToStd.Median, w.middle(func(s tlsSample) float64 { return float64(s.Result.Bytes) / s.Result.Seconds / 1e6 }))
		case "sessions", "resumed":
			p(" | %.2f | %.0f | %s", w.ToStd.Median, w.middle(func(s tlsSample) float64 { return float64(s.Result.Count) / s.Result.Seconds }),
				pair(tlsResult{P50: w.middle(func(s tlsSample) float64 { return s.Result.P50 }), P99: w.middle(func(s tlsSample) float64 { return s.Result.P99 })}))
		default:
			p(" | %.2f", w.ToStd.Median)
		}
		p(" |\n")
	}
	p("\n")
}

func (r *tlsCaseResult) panel() plot.Panel {
	title, _, _ := strings.Cut(r.Title, ":")
	p := plot.Panel{Title: title, Unit: r.Unit + "; the line is std"}
	for i := range r.Rows {
		w := &r.Rows[i]
		if w.Cost.none() {
			continue
		}
		if w.Peer == "std" {
			p.Mark = w.Cost.Median
		}
		p.Rows = append(p.Rows, plot.Row{Label: w.Peer, Kind: kind(w.Peer), Value: w.Cost.Median, Lo: w.Cost.Min, Hi: w.Cost.Max})
	}
	return p
}

func (r *tlsReport) write(dir string) error {
	if err := writeJSON(dir, "tls.json", r); err != nil {
		return err
	}
	var panels []plot.Panel
	for i := range r.Cases {
		if p := r.Cases[i].panel(); len(p.Rows) > 0 {
			panels = append(panels, p)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "tls.svg"), plot.Figure("TLS", panels), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "tls.md"), []byte(r.markdown()), 0o644)
}
