package main

import (
	"fmt"
	"strings"

	"github.com/weir-io/weir/address"
)

// explain draws what a plan would open, and opens nothing. It reads from A's
// wire down to B's.
func (p *plan) explain() string {
	type row struct{ mark, word, text string }
	var rows []row
	end := func(mark string, e *address.Endpoint, base, layers []row) []row {
		base = append(base, row{mark, e.Label(), e.Kind().Describe(e.Base)})
		if len(e.Layers) > 0 {
			base[len(base)-1].word = e.Text
		}
		for i, l := range e.Layers {
			layers = append(layers, row{"│", "+ " + l.Name.Text, e.DescribeLayer(i)})
		}
		return append(base, layers...)
	}
	rows = end("A", p.a, nil, nil)
	how := "bytes both ways, the end of each direction by itself, no timer"
	if p.datagrams() {
		how = "datagrams both ways, each whole"
	}
	rows = append(rows, row{"│", "relay", how})
	for i, b := range p.bs {
		mark := "B"
		if len(p.bs) > 1 {
			mark = fmt.Sprintf("B%d", i+1)
		}
		up := end(mark, b, nil, nil)
		for i := len(up) - 1; i >= 0; i-- {
			rows = append(rows, up[i])
		}
	}
	width, left := 0, 1
	for _, r := range rows {
		width = max(width, len([]rune(address.Printable(r.word))))
		left = max(left, len([]rune(r.mark)))
	}
	var b strings.Builder
	for _, r := range rows {
		word := address.Printable(r.word)
		pad := strings.Repeat(" ", width-len([]rune(word)))
		mark := r.mark + strings.Repeat(" ", left-len([]rune(r.mark)))
		fmt.Fprintf(&b, "  %s  %s%s   %s\n", mark, word, pad, address.Printable(r.text))
	}
	b.WriteString("\n" + p.course() + "\n")
	return b.String()
}

// course says in a sentence how often the plan relays and when it ends.
func (p *plan) course() string {
	a, b := p.a.Role(), p.bs[0].Role()
	choice, checks := "", ""
	if len(p.bs) > 1 {
		choice = map[string]string{
			"":       ": each in turn",
			"turn":   ": each in turn",
			"least":  ": the one with the least connections",
			"two":    ": the less busy of two drawn at random",
			"peer":   ": always the same for one peer address",
			"first":  ": the first",
			"random": ": any",
		}[p.f.pick] + ", and the next if it does not answer"
	}
	if p.f.check > 0 {
		checks = " Each is tried every " + p.f.check.String() + "."
	}
	switch {
	case p.answersNames():
		return "Every question is answered from the cache, or asked once on the other side. It runs until Ctrl-C."
	case p.datagrams():
		return "Every peer gets a port of its own on the way out. It runs until Ctrl-C."
	case a == address.Listen && b == address.Listen:
		return "It waits for one peer on each side, relays between the two, and ends with them."
	case p.many() && a == address.Listen:
		return "Every connection to A gets one of its own to B" + choice + "." + checks + " It runs until Ctrl-C."
	case p.many():
		return "Every connection to B gets one of its own to A. It runs until Ctrl-C."
	case a == address.Listen, b == address.Listen:
		return "It waits for one peer, relays once, and ends with it."
	}
	return "It relays once" + choice + "." + checks + " It ends when both sides have."
}
