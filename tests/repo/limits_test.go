package repo

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A scope has every name that a package declares, with the initial expression
// of a constant or a variable; nil for others.
type scope map[string]ast.Expr

// scopeOf reads the package in dir, its files for all systems.
func scopeOf(t *testing.T, dir string) scope {
	t.Helper()
	s := scope{}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				s[fn.Name.Name] = nil
			} else {
				ast.Inspect(d, s.declare)
			}
		}
	}
	return s
}

// declare adds the names that a node of a declaration declares.
func (s scope) declare(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.ValueSpec:
		for i, id := range n.Names {
			if i < len(n.Values) {
				s[id.Name] = n.Values[i]
			}
		}
	case *ast.TypeSpec:
		s[n.Name.Name] = nil
	case *ast.Field: // of a struct, or a method of an interface
		for _, id := range n.Names {
			if _, ok := s[id.Name]; !ok {
				s[id.Name] = nil
			}
		}
	}
	return true
}

// units are the durations of package time.
var units = map[string]time.Duration{
	"Nanosecond": time.Nanosecond, "Microsecond": time.Microsecond, "Millisecond": time.Millisecond,
	"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour,
}

// value computes an expression of numbers, times and constants of the package;
// unknown for any other. isTime says that it counts nanoseconds.
func (s scope) value(e ast.Expr) (v constant.Value, isTime bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0), false
	case *ast.ParenExpr:
		return s.value(e.X)
	case *ast.Ident:
		if of := s[e.Name]; of != nil {
			return s.value(of)
		}
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok && x.Name == "time" && units[e.Sel.Name] != 0 {
			return constant.MakeInt64(int64(units[e.Sel.Name])), true
		}
	case *ast.BinaryExpr:
		x, xt := s.value(e.X)
		y, yt := s.value(e.Y)
		if x.Kind() == constant.Unknown || y.Kind() == constant.Unknown {
			break
		}
		switch e.Op { //nolint:exhaustive // the others do not occur in a bound
		case token.SHL, token.SHR:
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(n)), xt
		case token.QUO:
			return constant.BinaryOp(x, token.QUO_ASSIGN, y), xt
		case token.ADD, token.SUB, token.MUL:
			return constant.BinaryOp(x, e.Op, y), xt || yt
		}
	}
	return constant.MakeUnknown(), false
}

// written returns how the page may write a bound.
func written(n int64, isTime bool) (forms []string) {
	in := func(unit int64, word string) {
		if n >= unit && n%unit == 0 {
			forms = append(forms, thousands(n/unit)+word)
		}
	}
	if isTime {
		in(int64(time.Microsecond), " µs")
		in(int64(time.Millisecond), " ms")
		in(int64(time.Second), " s")
		in(int64(time.Minute), " min")
		in(int64(time.Minute), " a minute")
		in(int64(time.Hour), " h")
		return forms
	}
	in(1, "")
	in(1<<10, " KiB")
	in(1<<20, " MiB")
	return forms
}

// thousands writes 4096 as 4,096.
func thousands(n int64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return thousands(n/1000) + fmt.Sprintf(",%03d", n%1000)
}

// says reports whether text has one of the forms as a word of its own: 5 s is not
// part of 15 s, and 64 is not the 64 of 64 KiB.
func says(text string, forms []string) bool {
	for _, f := range forms {
		if regexp.MustCompile(`(^|[^0-9,.])` + regexp.QuoteMeta(f) + `([^0-9A-Za-z,. ]|[,.]?$|[,.] | [^KM])`).MatchString(text) {
			return true
		}
	}
	return false
}

var (
	// inCode is how the page names a constant or a variable: its package and its name.
	inCode = regexp.MustCompile("`([a-z][a-z0-9/]*)\\.([a-z][A-Za-z0-9]*|Default[A-Za-z]*)`(?: times `[a-z0-9/]+\\.([a-z][A-Za-z0-9]*)`)?")
	// exported is how it names what a program can set: in package weir unless it
	// names another, and of the type before it if it begins with a dot.
	exported = regexp.MustCompile("`(?:([a-z][a-z0-9/]*)\\.|\\.)?([A-Z][A-Za-z0-9]*)(?:\\.([A-Z][A-Za-z0-9]*))?`")
)

// TestLimits: each constant that docs/limits.md names is in the code, and the row
// that names it has its value; and every setting that it names exists.
func TestLimits(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "docs", "limits.md"))
	if err != nil {
		t.Fatal(err)
	}
	dirs := packages(t)
	scopes := map[string]scope{}
	in := func(i int, pkg string) scope {
		dir, ok := dirs[pkg]
		if !ok {
			t.Errorf("limits.md:%d: there is no package %s", i+1, pkg)
			return nil
		}
		if scopes[dir] == nil {
			scopes[dir] = scopeOf(t, dir)
		}
		return scopes[dir]
	}
	checked := 0
	for i, line := range strings.Split(string(b), "\n") {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		words := inCode.ReplaceAllString(line, "")
		for _, m := range inCode.FindAllStringSubmatch(line, -1) {
			pkg, name, factor := m[1], m[2], m[3]
			e := ast.Expr(ast.NewIdent(name))
			if factor != "" {
				e = &ast.BinaryExpr{X: e, Op: token.MUL, Y: ast.NewIdent(factor)}
			}
			v, isTime := in(i, pkg).value(e)
			n, exact := constant.Int64Val(constant.ToInt(v))
			if !exact {
				t.Errorf("limits.md:%d: %s.%s is no number that package %s declares", i+1, pkg, name, pkg)
				continue
			}
			checked++
			if forms := written(n, isTime); !says(words, forms) {
				t.Errorf("limits.md:%d: %s.%s is %s, and the row does not say so", i+1, pkg, name, strings.Join(forms, " or "))
			}
		}
		pkg := "weir"
		for _, m := range exported.FindAllStringSubmatch(strings.Split(line, " | ")[3], -1) {
			if !strings.HasPrefix(m[0], "`.") {
				pkg = "weir"
			}
			if m[1] != "" {
				pkg = m[1]
			}
			for _, name := range m[2:] {
				if _, ok := in(i, pkg)[name]; !ok && name != "" {
					t.Errorf("limits.md:%d: package %s has no %s", i+1, pkg, name)
				}
			}
		}
	}
	if checked < 90 {
		t.Errorf("%d constants were checked; there were 99 when this was written", checked)
	}
}

// packages are the directories of packages, by the names that the page uses:
// the path, or what follows layer/ or internal/backend/ in it.
func packages(t *testing.T) map[string]string {
	t.Helper()
	dirs := map[string]string{"weir": root}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		dirs[rel] = path
		for _, above := range []string{"internal/backend/", "layer/"} {
			if name, ok := strings.CutPrefix(rel, above); ok {
				dirs[name] = path
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// TestSays shows that a value that the page lacks is reported.
func TestSays(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int64
		time bool
		want bool
	}{
		{"| 64 KiB | – |", 64 << 10, false, true},
		{"| 64 KiB | – |", 64, false, false},
		{"| 64 | – |", 64, false, true},
		{"| 1,024 | – |", 24, false, false},
		{"| 1,024, two for a name |", 1024, false, true},
		{"| 15 s, and more |", int64(5 * time.Second), true, false},
		{"| 15 s, and more |", int64(15 * time.Second), true, true},
		{"| from 2 to 5 s |", int64(5 * time.Second), true, true},
		{"| 0.5 s |", int64(5 * time.Second), true, false},
		{"| 500 ms |", int64(500 * time.Millisecond), true, true},
	} {
		if got := says(c.text, written(c.n, c.time)); got != c.want {
			t.Errorf("%q says %d: %v, want %v", c.text, c.n, got, c.want)
		}
	}
}
