package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/weir-io/weir/bench/internal/plot"
)

// A figure is one SVG file.
type figure struct {
	file, title string
	panels      []plot.Panel
}

func kind(peer string) plot.Kind {
	switch {
	case strings.Contains(peer, "weir"):
		return plot.Ours
	case strings.HasPrefix(peer, "c-"):
		return plot.Floor
	default:
		return plot.Peer
	}
}

// figures are those for which this run has data.
func (r *report) figures() []figure {
	var all []figure
	add := func(file, title string, panels ...plot.Panel) {
		var some []plot.Panel
		for _, p := range panels {
			if len(p.Rows) > 0 {
				some = append(some, p)
			}
		}
		if len(some) > 0 {
			all = append(all, figure{file, title, some})
		}
	}
	add("echo.svg", "Echo of 64 bytes: server CPU for each message", r.costs("echo-1"), r.costs("echo-64"), r.costs("echo-1000"), r.costs("echo-9000"))
	add("loads.svg", "Other loads: server CPU for each message", r.costs("pipelined"), r.costs("frames"), r.costs("churn"), r.costs("echo-64-4k"), r.costs("echo-64-64k"), r.costs("two-loops"), r.costs("open-1000"))
	add("latency.svg", "Latency in the open loop: p50 and p99", r.latencies("open-1000"), r.latencies("greedy"))
	add("relay.svg", "Relay of one stream", r.costs("relay"), r.costs("relay-trunc"), r.latencies("relay-first"))
	add("memory.svg", "Memory of an idle connection", r.memories("User side: heap and stacks (C: process)", user), r.memories("Kernel, both ends", func(m *memory) float64 { return m.Kernel }))
	add("micro.svg", "Posts and timers", r.micro("posts", ""), r.micro("timers", "bytes each"))
	return all
}

func user(m *memory) float64 {
	if m.Heap+m.Stack == 0 {
		return m.RSS
	}
	return m.Heap + m.Stack
}

func (r *report) costs(name string) plot.Panel {
	c, _ := r.find(name, "")
	if c == nil {
		return plot.Panel{}
	}
	p := plot.Panel{Title: shorter(c.Title), Unit: c.Unit + "; the line is " + c.Floor}
	for _, w := range c.Rows {
		if w.Cost.none() {
			continue
		}
		if w.Peer == c.Floor {
			p.Mark = w.Cost.Median
		}
		p.Rows = append(p.Rows, plot.Row{Label: w.Peer, Kind: kind(w.Peer), Value: w.Cost.Median, Lo: w.Cost.Min, Hi: w.Cost.Max})
	}
	return p
}

// shorter cuts a title to what fits above a panel.
func shorter(s string) string {
	s = strings.TrimPrefix(s, "Echo, ")
	if head, _, ok := strings.Cut(s, ":"); ok {
		s = head
	}
	if head, _, ok := strings.Cut(s, " ("); ok {
		s = head
	}
	if head, _, ok := strings.Cut(s, " on both"); ok {
		s = head
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func (r *report) latencies(name string) plot.Panel {
	c, _ := r.find(name, "")
	if c == nil {
		return plot.Panel{}
	}
	p := plot.Panel{Title: shorter(c.Title), Unit: "µs, logarithmic; the small dot is p50, the large one and the figure p99", Dots: true}
	for _, w := range c.Rows {
		if !w.Cost.none() {
			p.Rows = append(p.Rows, plot.Row{Label: w.Peer, Kind: kind(w.Peer), Value: w.P50, Hi: w.P99, Text: plot.Short(w.P99)})
		}
	}
	return p
}

func (r *report) memories(title string, get func(*memory) float64) plot.Panel {
	c, _ := r.find("echo-9000", "")
	if c == nil {
		return plot.Panel{}
	}
	p := plot.Panel{Title: title, Unit: "bytes"}
	for _, w := range c.Rows {
		if w.Memory != nil {
			v := get(w.Memory)
			p.Rows = append(p.Rows, plot.Row{Label: w.Peer, Kind: kind(w.Peer), Value: max(v, 0), Text: plot.Short(v)})
		}
	}
	return p
}

// micro draws the figures of a micro whose names do not contain without.
func (r *report) micro(name, without string) plot.Panel {
	p := plot.Panel{Unit: "ns for each operation"}
	for _, m := range r.Micros {
		if m.Name != name {
			continue
		}
		p.Title = m.Title
		for _, w := range m.Rows {
			if without != "" && strings.Contains(w.Name, without) || w.Value.Median > 2000 {
				continue
			}
			k := plot.Peer
			if strings.HasPrefix(w.Name, "weir") || strings.HasPrefix(w.Name, "post") {
				k = plot.Ours
			}
			p.Rows = append(p.Rows, plot.Row{Label: w.Name, Kind: k, Value: w.Value.Median, Lo: w.Value.Min, Hi: w.Value.Max})
		}
	}
	return p
}

func (r *report) plots(dir string) error {
	for _, f := range r.figures() {
		if err := os.WriteFile(filepath.Join(dir, f.file), plot.Figure(f.title, f.panels), 0o644); err != nil {
			return err
		}
	}
	return nil
}
