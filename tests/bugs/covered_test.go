package bugs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ids are the edges and the reports, by their letters and numbers: L for the
// library, C for the command, N for names, S for attacks; A, B and X for the
// reports in which they were seen.
func ids() []string {
	all := strings.Fields("A1 A2 A5 A6 A7 A8 A9 A10 A12 A13 A14 A16 A17 A18 A19 A20 A21 A22 A23 A24 A25 A27 A29 A30 A31 A32 A33 A34 A35 " +
		"B4 B5 B6 B8 B9 B12 B22s X1 X2 X3 X4b")
	for _, k := range []struct {
		letter string
		last   int
	}{{"L", 16}, {"C", 10}, {"N", 5}, {"S", 15}} {
		for i := 1; i <= k.last; i++ {
			all = append(all, fmt.Sprint(k.letter, i))
		}
	}
	return all
}

// rowIDs are the ids of all rows, read from the rows' files.
func rowIDs(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("rows*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			key, ok := kv.Key.(*ast.Ident)
			if value, lit := kv.Value.(*ast.BasicLit); ok && lit && key.Name == "id" {
				if s, err := strconv.Unquote(value.Value); err == nil {
					all = append(all, strings.Split(s, ", ")...)
				}
			}
			return true
		})
	}
	return all
}

// open are ids that may have neither a patch nor a row: S14 is planned. Remove an id
// when it gets one.
var open = strings.Fields("S14")

// TestCovered: each id has a patch or a row, unless it is open.
func TestCovered(t *testing.T) {
	have := rowIDs(t)
	if len(have) == 0 {
		t.Error("no row has an id")
	}
	for _, p := range patches(t) {
		title, _, _ := strings.Cut(p.title, ":")
		have = append(have, strings.Split(title, ", ")...)
	}
	for _, id := range ids() {
		switch covered := slices.Contains(have, id); {
		case !covered && slices.Contains(open, id):
			t.Logf("%s is open", id)
		case !covered:
			t.Errorf("%s has neither a patch nor a row", id)
		case slices.Contains(open, id):
			t.Errorf("%s is covered: take it off the list of what is open", id)
		}
	}
}
