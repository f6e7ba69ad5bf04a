package plot

import (
	"bytes"
	"fmt"
)

// Line is one line of a chart: its values, at equal distances.
type Line struct {
	Label  string
	Kind   Kind
	Values []float64
}

// Chart is a diagram of lines over time.
type Chart struct {
	Title, Unit string
	Lines       []Line
	Step        float64 // seconds from one value to the next
	Most        float64 // the top of the scale
	Mark        float64 // where to draw a line across, if above 0
}

const (
	chartH    = 130
	chartHead = 40
	scaleW    = 52
)

const lineStyle = `.l{fill:none;stroke-width:1.6}.l.ours{fill:none;stroke:#0969da}.l.floor{fill:none;stroke:#818b98}.l.peer{fill:none;stroke:#9a6700}
@media (prefers-color-scheme:dark){.l.ours{stroke:#4493f8}.l.floor{stroke:#9198a1}.l.peer{stroke:#d29922}}`

// Lines draws charts under a title, one below the other.
func Lines(title string, charts []Chart) []byte {
	var b bytes.Buffer
	each := chartHead + chartH + axisH
	height := titleH + margin + len(charts)*each
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n",
		width, height, width, height, escape(title))
	fmt.Fprintf(&b, "<style>%s\n%s</style>\n<rect class=\"bg\" width=\"%d\" height=\"%d\"/>\n", style, lineStyle, width, height)
	text(&b, margin, 28, "h", "start", title)
	for i := range charts {
		charts[i].draw(&b, float64(titleH+i*each))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (c *Chart) draw(b *bytes.Buffer, top float64) {
	text(b, margin, top+16, "t", "start", c.Title)
	text(b, margin, top+32, "dim", "start", c.Unit)
	x := float64(width - margin)
	for i := len(c.Lines) - 1; i >= 0; i-- { // the legend, from the right
		l := &c.Lines[i]
		text(b, x, top+16, "", "end", l.Label)
		x -= float64(len(l.Label))*charW + 26
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="l %s"/>`+"\n", x+2, top+12, x+20, top+12, l.Kind)
		x -= 14
	}
	left, right, zero := float64(margin+scaleW), float64(width-margin), top+chartHead+chartH
	y := func(v float64) float64 { return zero - min(v, c.Most)/c.Most*chartH }
	for i := range 5 {
		v := c.Most * float64(i) / 4
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="grid"/>`+"\n", left, y(v), right, y(v))
		text(b, left-6, y(v)+4, "dim n", "end", fmt.Sprintf("%g", v))
	}
	if c.Mark > 0 {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="mark"/>`+"\n", left, y(c.Mark), right, y(c.Mark))
	}
	n := 0
	for i := range c.Lines {
		n = max(n, len(c.Lines[i].Values)-1)
	}
	at := func(i int) float64 { return left + float64(i)*(right-left)/float64(max(n, 1)) }
	for s := 0.0; s <= float64(n)*c.Step; s += 10 {
		text(b, at(int(s/c.Step)), zero+16, "dim n", "middle", fmt.Sprintf("%g s", s))
	}
	for i := range c.Lines {
		l := &c.Lines[i]
		fmt.Fprintf(b, `<polyline class="l %s" points="`, l.Kind)
		for k, v := range l.Values {
			fmt.Fprintf(b, "%.1f,%.1f ", at(k), y(v))
		}
		b.WriteString("\"/>\n")
	}
}
