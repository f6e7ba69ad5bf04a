// Package plot draws bars and ranges as SVG that is readable on a light and on
// a dark background.
//
//	Figure: a title over panels, two beside each other where labels are short
//	Panel:  a title, a unit, a scale, one line for each Row
//	Row:    a label, a bar with whiskers or two dots with a line between, a figure
package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
)

// Kind is whose figure a row is; it decides the colour.
type Kind string

// The kinds of rows.
const (
	Ours  Kind = "ours"
	Floor Kind = "floor"
	Peer  Kind = "peer"
)

// Row is one line of a panel.
type Row struct {
	Label  string
	Kind   Kind
	Value  float64
	Lo, Hi float64 // the spread; of Dots, Hi is the second value
	Text   string  // the figure to print; "" prints Value
}

// Panel is one diagram.
type Panel struct {
	Title, Unit string
	Rows        []Row
	Dots        bool    // Value and Hi as dots on a logarithmic scale
	Mark        float64 // where to draw a line across, if above 0
}

const (
	width   = 940
	gap     = 28
	margin  = 16
	rowH    = 19
	figureW = 66
	charW   = 6.9 // of a label, about
	headH   = 46
	axisH   = 24
	titleH  = 44
)

const style = `text{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:#1f2328}
.bg{fill:#fff}.h{font-size:17px;font-weight:600}.t{font-weight:600}.dim{fill:#59636e}.n{font-variant-numeric:tabular-nums}
.grid{stroke:#d1d9e0;stroke-width:1}.mark{stroke:#59636e;stroke-width:1;stroke-dasharray:3 3}.whisk{stroke:#1f2328;stroke-width:1.2;fill:none}
.ours{fill:#0969da}.floor{fill:#818b98}.peer{fill:#c9b18a}.range{stroke:#818b98;stroke-width:2}
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.bg{fill:#0d1117}.dim{fill:#9198a1}.grid{stroke:#3d444d}.mark{stroke:#9198a1}.whisk{stroke:#f0f6fc}.ours{fill:#4493f8}.floor{fill:#9198a1}.peer{fill:#8a7348}.range{stroke:#656c76}}`

// Figure draws panels under a title.
func Figure(title string, panels []Panel) []byte {
	var b bytes.Buffer
	f := layOut(panels)
	height := titleH + margin
	for i := 0; i < len(panels); i += f.columns {
		height += f.rowHeight(panels, i)
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n",
		width, height, width, height, escape(title))
	fmt.Fprintf(&b, "<style>%s</style>\n<rect class=\"bg\" width=\"%d\" height=\"%d\"/>\n", style, width, height)
	text(&b, margin, 28, "h", "start", title)
	y := titleH
	for i := 0; i < len(panels); i += f.columns {
		for k := range min(f.columns, len(panels)-i) {
			panels[i+k].draw(&b, f, margin+k*(f.panelW+gap), y)
		}
		y += f.rowHeight(panels, i)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// layout is how a figure divides its width.
type layout struct {
	columns, panelW int
	labelW, barsW   float64
}

func layOut(panels []Panel) layout {
	f := layout{columns: 2, labelW: 100}
	for _, p := range panels {
		for _, r := range p.Rows {
			f.labelW = max(f.labelW, charW*float64(len(r.Label))+12)
		}
	}
	if f.labelW > 160 {
		f.columns = 1
	}
	f.panelW = (width - 2*margin - gap*(f.columns-1)) / f.columns
	f.barsW = float64(f.panelW) - f.labelW - figureW
	return f
}

// rowHeight is the height of the panels from i on, side by side.
func (f layout) rowHeight(panels []Panel, i int) int {
	n := 0
	for k := range min(f.columns, len(panels)-i) {
		n = max(n, len(panels[i+k].Rows))
	}
	return headH + n*rowH + axisH + 8
}

func (p *Panel) draw(b *bytes.Buffer, f layout, x, y int) {
	text(b, float64(x), float64(y+16), "t", "start", p.Title)
	text(b, float64(x), float64(y+33), "dim", "start", p.Unit)
	left, top := float64(x)+f.labelW, float64(y+headH)
	bottom := top + float64(len(p.Rows)*rowH)
	s := p.scale()
	for _, t := range s.ticks {
		at := left + s.pos(t)*f.barsW
		fmt.Fprintf(b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", at, at, top, bottom+3)
		text(b, at, bottom+17, "dim n", "middle", compact(t))
	}
	if p.Mark > 0 {
		at := left + s.pos(p.Mark)*f.barsW
		fmt.Fprintf(b, `<line class="mark" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", at, at, top, bottom)
	}
	for i, r := range p.Rows {
		mid := top + float64(i*rowH) + rowH/2.0
		text(b, left-8, mid+4, "", "end", r.Label)
		if p.Dots {
			r.dots(b, f, left, mid, s)
		} else {
			r.bar(b, f, left, mid, s)
		}
		figure := r.Text
		if figure == "" {
			figure = Short(r.Value)
		}
		text(b, left+f.barsW+figureW-2, mid+4, "n", "end", figure)
	}
}

func (r *Row) bar(b *bytes.Buffer, f layout, left, mid float64, s scale) {
	fmt.Fprintf(b, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%d" rx="2"/>`+"\n",
		r.Kind, left, mid-6, max(s.pos(r.Value)*f.barsW, 1), 12)
	if r.Hi > r.Lo {
		lo, hi := left+s.pos(r.Lo)*f.barsW, left+s.pos(r.Hi)*f.barsW
		fmt.Fprintf(b, `<path class="whisk" d="M%.1f %.1fv6m0 -3H%.1fm0 -3v6"/>`+"\n", lo, mid-3, hi)
	}
}

func (r *Row) dots(b *bytes.Buffer, f layout, left, mid float64, s scale) {
	a, z := left+s.pos(r.Value)*f.barsW, left+s.pos(r.Hi)*f.barsW
	fmt.Fprintf(b, `<line class="range" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`+"\n", a, z, mid, mid)
	fmt.Fprintf(b, `<circle class="%s" cx="%.1f" cy="%.1f" r="4"/><circle class="%s" cx="%.1f" cy="%.1f" r="5.5"/>`+"\n",
		r.Kind, a, mid, r.Kind, z, mid)
}

// scale maps values to 0..1.
type scale struct {
	lo, hi float64
	log    bool
	ticks  []float64
}

func (s scale) pos(v float64) float64 {
	if s.log {
		v = math.Log(max(v, s.lo)) - math.Log(s.lo)
		return min(max(v/(math.Log(s.hi)-math.Log(s.lo)), 0), 1)
	}
	return min(max(v/s.hi, 0), 1)
}

func (p *Panel) scale() scale {
	lo, hi := math.Inf(1), p.Mark
	for _, r := range p.Rows {
		hi = max(hi, r.Value)
		if p.Dots {
			hi = max(hi, r.Hi)
		} else {
			// One wild round must not squeeze all bars: its whisker ends at the edge.
			hi = max(hi, min(r.Hi, 1.3*r.Value))
		}
		if r.Value > 0 {
			lo = min(lo, r.Value)
		}
	}
	if hi <= 0 {
		hi = 1
	}
	if !p.Dots {
		step := niceStep(hi)
		s := scale{hi: hi * 1.02}
		for i := 0; float64(i)*step <= hi*1.02; i++ {
			s.ticks = append(s.ticks, float64(i)*step)
		}
		return s
	}
	first, last := math.Floor(math.Log10(lo)), math.Ceil(math.Log10(hi))
	if last <= first {
		last = first + 1
	}
	s := scale{lo: math.Pow(10, first), hi: math.Pow(10, last), log: true}
	for e := first; e <= last; e++ {
		s.ticks = append(s.ticks, math.Pow(10, e))
	}
	return s
}

// niceStep is a round step that divides hi into three to six parts.
func niceStep(hi float64) float64 {
	e := math.Pow(10, math.Floor(math.Log10(hi)))
	for _, m := range []float64{0.2, 0.25, 0.5, 1, 2} {
		if hi/(m*e) <= 5.5 {
			return m * e
		}
	}
	return 2 * e
}

// Short writes a figure with about three digits.
func Short(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0"
	case a >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case a >= 1e4:
		return fmt.Sprintf("%.1fk", v/1e3)
	case a >= 1e3:
		return fmt.Sprintf("%d,%03d", int(v)/1000, int(a)%1000)
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

// compact writes round figures: 20k, 1.5M.
func compact(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 3, 64) + "M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 4, 64) + "k"
	default:
		return strconv.FormatFloat(v, 'g', 4, 64)
	}
}

func text(b *bytes.Buffer, x, y float64, class, anchor, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, escape(s))
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer takes everything
	return b.String()
}
