package repo

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var quoted = regexp.MustCompile("`([^`]+)`")

// declared are the names that a Go file declares: "New", "Loop", "Loop.turn".
func declared(t *testing.T, name, src string) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			prefix := ""
			if d.Recv != nil {
				typ := d.Recv.List[0].Type
				if p, ok := typ.(*ast.StarExpr); ok {
					typ = p.X
				}
				if x, ok := typ.(*ast.IndexExpr); ok {
					typ = x.X
				}
				if id, ok := typ.(*ast.Ident); ok {
					prefix = id.Name + "."
				}
			}
			all[prefix+d.Name.Name] = true
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					all[spec.Name.Name] = true
				case *ast.ValueSpec:
					for _, id := range spec.Names {
						all[id.Name] = true
					}
				}
			}
		}
	}
	return all
}

// off returns what is wrong with the rows of a map: paths that do not exist, and
// names that none of the row's files declares. elsewhere says which files do.
func off(t *testing.T, text string, read func(path string) (string, bool), elsewhere func(name string) []string) (bad []string, rows int) {
	t.Helper()
	_, text, _ = strings.Cut(text, "\n## Map\n")
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 3 || !quoted.MatchString(cells[1]) {
			continue
		}
		rows++
		has := map[string]bool{}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			src, ok := read(m[1])
			if !ok {
				bad = append(bad, fmt.Sprintf("there is no %s", m[1]))
			} else if strings.HasSuffix(m[1], ".go") {
				for name := range declared(t, m[1], src) {
					has[name] = true
				}
			}
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[2], -1) {
			if !has[m[1]] {
				bad = append(bad, fmt.Sprintf("%s does not declare %s; these do: %v", cells[1], m[1], elsewhere(m[1])))
			}
		}
	}
	return bad, rows
}

// TestMap: things are where HACKING.md's map says they are.
func TestMap(t *testing.T) {
	hacking, err := os.ReadFile(filepath.Join(root, "HACKING.md"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) (string, bool) {
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
		return string(b), err == nil
	}
	elsewhere := func(name string) (files []string) {
		for path, src := range texts(t, ".go") {
			if declared(t, path, src)[name] {
				files = append(files, path)
			}
		}
		return files
	}
	bad, rows := off(t, string(hacking), read, elsewhere)
	for _, problem := range bad {
		t.Errorf("HACKING.md, Map: %s", problem)
	}
	if rows < 20 {
		t.Errorf("the map answers %d questions, and has answered 20", rows)
	}
}

// TestMapOff shows that a file or a name that moved is found.
func TestMapOff(t *testing.T) {
	read := func(path string) (string, bool) {
		return "package a\ntype T[V any] struct{}\nfunc (t *T[V]) m() {}\nconst C = 1\nvar A, B int\n", path == "a.go"
	}
	moved := func(string) []string { return []string{"b.go"} }
	for row, want := range map[string]string{
		"| a? | `a.go` | `T`, `T.m`, `C`, `B` |": "",
		"| a? | `a.go` | |":                      "",
		"| a? | `c.go` | |":                      "there is no c.go",
		"| a? | `a.go` | `m` |":                  "`a.go` does not declare m; these do: [b.go]",
	} {
		bad, rows := off(t, "# H\n\n## Map\n\n| q | f | n |\n|---|---|---|\n"+row+"\n", read, moved)
		if got := strings.Join(bad, "; "); got != want || rows != 1 {
			t.Errorf("%s: %q in %d rows, want %q", row, got, rows, want)
		}
	}
}
