package main

import (
	"fmt"
	"strings"

	"github.com/weir-io/weir/endpoint"
)

// explain draws what a plan would open, and opens nothing. It reads from A's
// wire down to B's.
func (p *plan) explain() string {
	type row struct{ mark, word, text string }
	var rows []row
	end := func(mark string, e *endpoint.Endpoint, base, layers []row) []row {
		text := e.Kind().Describe(e.Base)
		if e.ThroughProxy() {
			text = "connects to TCP " + e.Base.ArgText() + ", for each peer by itself"
		}
		base = append(base, row{mark, e.Label(), text})
		if len(e.Layers) > 0 {
			base[len(base)-1].word = e.Text
		}
		for i, l := range e.Layers {
			layers = append(layers, row{"│", "+ " + l.Name.Text, e.DescribeLayer(i)})
		}
		return append(base, layers...)
	}
	rows = end("A", p.a, nil, nil)
	how := "bytes both ways, each direction ends by itself, no timer"
	what := "relay"
	switch {
	case p.answersNames():
		what, how = "answer", "from the hosts file and a cache, or else by asking"
	case p.datagrams():
		how = "datagrams both ways, each whole"
	}
	rows = append(rows, row{"│", what, how})
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
		width = max(width, len([]rune(endpoint.Printable(r.word))))
		left = max(left, len([]rune(r.mark)))
	}
	var b strings.Builder
	for _, r := range rows {
		word := endpoint.Printable(r.word)
		pad := strings.Repeat(" ", width-len([]rune(word)))
		mark := r.mark + strings.Repeat(" ", left-len([]rune(r.mark)))
		fmt.Fprintf(&b, "  %s  %s%s   %s\n", mark, word, pad, endpoint.Printable(r.text))
	}
	b.WriteString("\n" + p.course() + "\n")
	return b.String()
}

// packetCourse is course for datagrams.
func (p *plan) packetCourse(choice, checks string) string {
	from, to := p.a, p.bs
	if from.Role() != endpoint.Listen {
		from, to = p.bs[0], []*endpoint.Endpoint{p.a}
	}
	s := "Every peer gets a port of its own on the way out"
	if to[0].ThroughProxy() {
		s = "Every peer gets an association of its own with the proxy"
	}
	if choice != "" {
		s += ", and a target: " + choice + ", and another if the network refuses it"
	}
	idle := endpoint.PacketIdle(append([]*endpoint.Endpoint{from}, to...)...)
	s += "." + checks + " A peer is forgotten when nothing has passed for " + span(idle) + ". "
	if from.Kind().Packets(from.Base).Open != nil {
		return s + "It ends with the recording."
	}
	return s + "It runs until Ctrl-C."
}

// course says in a sentence how often the plan relays and when it ends.
func (p *plan) course() string {
	a, b := p.a.Role(), p.bs[0].Role()
	choice, checks := "", ""
	if len(p.bs) > 1 && p.datagrams() {
		choice = map[string]string{
			"":       "each in turn",
			"turn":   "each in turn",
			"least":  "the one with the fewest peers",
			"two":    "the less busy of two drawn at random",
			"peer":   "always the same for one address",
			"first":  "the first",
			"random": "any",
		}[p.f.pick]
	} else if len(p.bs) > 1 {
		choice = map[string]string{
			"":       ": each in turn",
			"turn":   ": each in turn",
			"least":  ": the one with the fewest connections",
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
		return p.packetCourse(choice, checks)
	case a == endpoint.Listen && b == endpoint.Listen:
		return "It waits for one peer on each side, relays between the two, and ends with them."
	case p.many() && a == endpoint.Listen:
		return "Every connection to A gets one of its own to B" + choice + "." + checks + " It runs until Ctrl-C."
	case p.many():
		return "Every connection to B gets one of its own to A. It runs until Ctrl-C."
	case a == endpoint.Listen, b == endpoint.Listen:
		return "It waits for one peer, relays once, and ends with it."
	}
	return "It relays once" + choice + "." + checks + " It ends when both sides have."
}
