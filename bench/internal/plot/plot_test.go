package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

// TestFigureParses checks that the drawing is XML, has every label, and draws
// no bar outside its panel, whatever the figures.
func TestFigureParses(t *testing.T) {
	panels := []Panel{
		{Title: "a < b & c", Unit: "µs", Mark: 1, Rows: []Row{{Label: `"quoted"`, Kind: Ours, Value: 2, Lo: 1, Hi: 900}}},
		{Title: "empty", Unit: "none"},
		{Title: "dots", Unit: "ns", Dots: true, Rows: []Row{{Label: "d1", Kind: Floor, Value: 0.02, Hi: 5e6}, {Label: "d2", Kind: Peer}}},
	}
	svg := Figure("title", panels)
	d := xml.NewDecoder(strings.NewReader(string(svg)))
	texts, bars := "", 0
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := tok.(xml.CharData); ok {
			texts += string(c)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	for _, want := range []string{"a < b & c", `"quoted"`, "d1", "d2", "title"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is not in the figure", want)
		}
	}
	if bars != 2 { // the background and the one bar
		t.Errorf("%d rectangles, want 2", bars)
	}
	for _, bad := range []string{"NaN", "Inf"} {
		if strings.Contains(string(svg), bad) {
			t.Errorf("the figure holds %s", bad)
		}
	}
}

func TestScaleStaysInside(t *testing.T) {
	p := Panel{Rows: []Row{{Value: 3, Lo: 1, Hi: 100}, {Value: 7}}}
	s := p.scale()
	for _, v := range []float64{0, 3, 7, 100, 1e9} {
		if x := s.pos(v); x < 0 || x > 1 || math.IsNaN(x) {
			t.Errorf("pos(%v) = %v", v, x)
		}
	}
	if n := len(s.ticks); n < 3 || n > 7 {
		t.Errorf("%d ticks up to %v", n, s.hi)
	}
}
