package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSummary: results.json has the summary of the rounds, samples.json the rounds
// themselves.
func TestSummary(t *testing.T) {
	c := testCase{Name: "echo-1", Title: "Echo"}
	r := report{Cases: []caseResult{{Name: c.Name, Title: c.Title, c: &c, Rows: []row{{
		Peer: "a", Cost: spread{27.005279546, 23.1530227, 12345.678901}, Rate: 15830.79260944009,
		Samples: []sample{{Round: 0}, {Round: 1, Error: "refused"}},
	}}}}}
	dir := t.TempDir()
	for name, v := range map[string]*report{"samples.json": &r, "results.json": r.summary()} {
		if err := writeJSON(dir, name, v); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) (text string, w row) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		var back report
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		return string(b), back.Cases[0].Rows[0]
	}
	if _, w := read("samples.json"); len(w.Samples) != 2 {
		t.Errorf("samples.json has %d samples, want 2", len(w.Samples))
	}
	text, w := read("results.json")
	if strings.Contains(text, "Samples") || w.Failed != "1 of 2 rounds failed: refused" {
		t.Errorf("results.json: failed %q in\n%s", w.Failed, text)
	}
	if want := `"Cost": { "Median": 27.01, "Min": 23.15, "Max": 12346 }`; !strings.Contains(text, want) {
		t.Errorf("results.json lacks %s:\n%s", want, text)
	}
	if len(r.Cases[0].Rows[0].Samples) != 2 {
		t.Error("the summary took the report's own samples")
	}
}

// TestNoRatio: a cost that was too small to be measured gives no ratio, and what is no number is
// printed as none.
func TestNoRatio(t *testing.T) {
	c := testCase{Name: "relay-64-1"}
	r := report{Cases: []caseResult{{Name: c.Name, c: &c, Rows: []row{
		{Peer: "a", Cost: spread{2, 1, 3}}, {Peer: "b", Cost: spread{2, 0, 3}}, {Peer: "c", Cost: spread{4, 2, 6}},
	}}}}
	if v, ok := leastRatio(c.Name, "a", "b")(&r); ok {
		t.Errorf("the ratio to 0 is %v", v)
	}
	if v, ok := leastRatio(c.Name, "a", "c")(&r); !ok || v != 0.5 {
		t.Errorf("ratio %v, %t", v, ok)
	}
	for _, v := range []float64{math.Inf(1), math.Inf(-1), math.NaN()} {
		if s := short(v); s != "–" {
			t.Errorf("%v is printed as %q", v, s)
		}
	}
}
