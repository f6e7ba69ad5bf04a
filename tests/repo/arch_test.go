package repo

import (
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const archModule = "github.com/weir-io/weir"

// An archRow is one line of DESIGN.md's table of packages.
type archRow struct {
	pattern  string   // "weir", "internal/sys", "examples/..."
	imports  []string // what it may import, in the same terms
	exported bool     // it may import every exported package
	later    bool     // there is no such package yet
}

// archTestModules are the modules that every test file may import from outside.
var archTestModules = []string{"golang.org/x/net", "golang.org/x/sys"}

// TestArchitecture checks DESIGN.md's table: no package imports anything that
// its line does not name, on any platform, and each package has a line.
func TestArchitecture(t *testing.T) {
	t.Chdir("../..")
	design, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := archTable(string(design))
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	var names []string
	for _, dir := range archDirs(t) {
		names = append(names, archName(dir))
		for _, goos := range []string{"linux", "darwin", "windows"} {
			ctx := build.Default
			ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled = goos, "amd64", false
			p, err := ctx.ImportDir(dir, 0)
			if _, none := errors.AsType[*build.NoGoError](err); none {
				continue
			}
			if err != nil {
				t.Errorf("%s on %s: %v", dir, goos, err)
				continue
			}
			files += len(p.GoFiles) + len(p.TestGoFiles) + len(p.XTestGoFiles)
			name := archName(dir)
			for _, problem := range archCheck(rows, name, p.Imports, slices.Concat(p.TestImports, p.XTestImports)) {
				t.Errorf("on %s: %s", goos, problem)
			}
		}
	}
	if files == 0 {
		t.Fatal("no Go files were read")
	}
	for _, problem := range archMissing(rows, names) {
		t.Error(problem)
	}
}

// TestArchitectureFails shows that breaches of the table are found, and that
// the message says how.
func TestArchitectureFails(t *testing.T) {
	t.Chdir("../..")
	rows, err := archTable("| package | what it is | may import |\n|---|---|---|\n" +
		"| `weir` | | `internal/backend` |\n| `internal/backend` | | nothing |\n| `internal/sys` | | `golang.org/x/sys` |\n" +
		"| `layer` | | `weir` |\n| `cmd/weir` | | exported packages, `cmd/weir/internal/advice` |\n| `cmd/weir/internal/advice` | | exported packages |\n| `examples/...` | | exported packages |\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		imports []string
		tests   []string
		want    string // "" for none
	}{
		{name: "weir", imports: []string{"net", archModule + "/internal/backend"}},
		{name: "internal/backend", imports: []string{archModule}, want: "internal/backend imports weir"},
		{name: "internal/sys", imports: []string{"golang.org/x/sys/unix"}},
		{name: "internal/sys", imports: []string{"golang.org/x/system"}, want: "internal/sys imports golang.org/x/system"},
		{name: "layer", imports: []string{"example.org/other"}, want: "layer imports example.org/other"},
		{name: "layer", imports: []string{archModule + "/layered"}, want: "layer imports layered"},
		{name: "layer", tests: []string{archModule + "/cmd/weir"}, want: "layer's tests import cmd/weir"},
		{name: "layer", tests: []string{archModule + "/internal/sys", "golang.org/x/net/nettest"}},
		{name: "internal/sys", tests: []string{archModule + "/layer"}, want: "internal/sys's tests import layer"},
		{name: "cmd/weir", imports: []string{archModule, archModule + "/layer"}},
		{name: "cmd/weir", imports: []string{archModule + "/cmd/weir/internal/advice"}},
		{name: "examples/echo", imports: []string{archModule + "/cmd/weir/internal/advice"}, want: "examples/echo imports cmd/weir/internal/advice"},
		{name: "cmd/weir", imports: []string{archModule + "/internal/sys"}, want: "cmd/weir imports internal/sys"},
		{name: "examples/echo", imports: []string{archModule}},
		{name: "fresh", want: "fresh is in no line"},
	} {
		got := strings.Join(archCheck(rows, c.name, c.imports, c.tests), "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s importing %q, tests %q: got %q, want %q", c.name, c.imports, c.tests, got, c.want)
		}
	}
	if got := strings.Join(archMissing([]archRow{{pattern: "a"}, {pattern: "b", later: true}, {pattern: "c"}, {pattern: "d/..."}, {pattern: "e", later: true}}, []string{"b", "c", "d/x"}), "\n"); got !=
		"a has a line in DESIGN.md's table and is not there\nb is there: its line in DESIGN.md's table says that it is to come" {
		t.Errorf("missing: %s", got)
	}
	if _, err := archTable("no table here"); err == nil {
		t.Error("a document without the table parses")
	}
}

// archTable reads the table whose header is "| package | … | may import |".
func archTable(doc string) ([]archRow, error) {
	var rows []archRow
	in := false
	for line := range strings.Lines(doc) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case len(cells) == 3 && cells[0] == "package" && cells[2] == "may import":
			in = true
		case !in || strings.HasPrefix(cells[0], "---"):
		case len(cells) != 3:
			in = false
		default:
			r := archRow{pattern: strings.Trim(cells[0], "`"), later: strings.HasPrefix(cells[1], "to come: ")}
			for _, name := range strings.Split(cells[2], ",") {
				switch name = strings.Trim(strings.TrimSpace(name), "`"); name {
				case "nothing":
				case "exported packages":
					r.exported = true
				default:
					r.imports = append(r.imports, name)
				}
			}
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return nil, errors.New("DESIGN.md has no table of packages")
	}
	return rows, nil
}

// archCheck returns what is wrong with the imports of package name and its tests.
// archMissing returns the lines without a package, and those that say "to come"
// of one that is there.
func archMissing(rows []archRow, names []string) []string {
	var problems []string
	for _, r := range rows {
		there := slices.ContainsFunc(names, func(name string) bool { return archFind([]archRow{r}, name) != nil })
		switch {
		case !there && !r.later:
			problems = append(problems, r.pattern+" has a line in DESIGN.md's table and is not there")
		case there && r.later:
			problems = append(problems, r.pattern+" is there: its line in DESIGN.md's table says that it is to come")
		}
	}
	return problems
}

func archCheck(rows []archRow, name string, imports, tests []string) []string {
	own := archFind(rows, name)
	if own == nil {
		return []string{name + " is in no line of DESIGN.md's table: give it one that says what it may import"}
	}
	var problems []string
	for _, imp := range slices.Compact(slices.Sorted(slices.Values(imports))) {
		target, kind := archClassify(imp)
		ok := kind == archStandard || kind == archOurs && archFind(rows, target) == own
		switch {
		case ok:
		case kind == archOurs && own.exported:
			ok = archFind(rows, target) != nil && archExported(target) || slices.Contains(own.imports, target)
		case kind == archOurs:
			ok = slices.Contains(own.imports, target)
		default:
			// The lines name modules, the files name packages in them.
			ok = slices.ContainsFunc(own.imports, func(m string) bool { return archWithin(target, m) }) ||
				archOwnModule(name)
		}
		if !ok {
			problems = append(problems, fmt.Sprintf("%s imports %s: its line in DESIGN.md's table does not allow that", name, target))
		}
	}
	for _, imp := range slices.Compact(slices.Sorted(slices.Values(tests))) {
		target, kind := archClassify(imp)
		ok := kind == archStandard
		switch {
		case ok:
		case kind == archOutside:
			ok = slices.ContainsFunc(slices.Concat(archTestModules, own.imports), func(m string) bool { return archWithin(target, m) }) || archOwnModule(name)
		case archWithin(name, "internal"):
			ok = archWithin(target, "internal")
		default:
			ok = target == name || archFind(rows, target) != nil && !archWithin(target, "cmd") || slices.Contains(own.imports, target)
		}
		if !ok {
			problems = append(problems, fmt.Sprintf("%s's tests import %s: see what tests may import below DESIGN.md's table", name, target))
		}
	}
	return problems
}

// archOwnModule reports whether name is in a module of its own, whose go.mod says
// what else it needs.
func archOwnModule(name string) bool {
	return archWithin(name, "bench") || archWithin(name, "interop") ||
		archWithin(name, "hosts") && !archWithin(name, "hosts/internal")
}

func archFind(rows []archRow, name string) *archRow {
	for i := range rows {
		base, below := strings.CutSuffix(rows[i].pattern, "/...")
		if name == rows[i].pattern || below && archWithin(name, base) {
			return &rows[i]
		}
	}
	return nil
}

func archExported(name string) bool { return !archWithin(name, "internal") && !archWithin(name, "cmd") }

func archWithin(name, base string) bool { return name == base || strings.HasPrefix(name, base+"/") }

type archKind int

const (
	archStandard archKind = iota
	archOurs
	archOutside
)

// archClassify turns an import path into the table's terms.
func archClassify(imp string) (string, archKind) {
	if imp == archModule {
		return "weir", archOurs
	}
	if sub, ok := strings.CutPrefix(imp, archModule+"/"); ok {
		return sub, archOurs
	}
	if first, _, _ := strings.Cut(imp, "/"); strings.Contains(first, ".") {
		return imp, archOutside
	}
	return imp, archStandard
}

func archName(dir string) string {
	if dir == "." {
		return "weir"
	}
	return filepath.ToSlash(dir)
}

// archDirs lists the directories that hold Go files, modules of their own
// (bench, interop, those in hosts) included.
func archDirs(t *testing.T) []string {
	t.Helper()
	dirs := map[string]bool{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() && name != "." && (base[0] == '.' || base[0] == '_' || base == "testdata" || name == "bin" || name == "tools") {
			return fs.SkipDir
		}
		if !d.IsDir() && path.Ext(base) == ".go" {
			dirs[filepath.Dir(name)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(dirs))
}

// TestSimulatedCode checks the code that the simulator runs: it has no
// goroutine, no select and no loop over a map, whose order does not come from
// the seed, unless a comment says why that one is harmless.
func TestSimulatedCode(t *testing.T) {
	t.Chdir("../..")
	for _, dir := range []string{".", "future", "task", "task/stream", "layer", "layer/packet", "layer/proxy", "frame", "dns", "process", "weirtest", "internal/timers", "internal/backend/sim"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return strings.HasSuffix(n, "_test.go") })
		fset := token.NewFileSet()
		var files []*ast.File
		for _, name := range names {
			f, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		for _, problem := range archDisorder(fset, files) {
			t.Error(problem)
		}
	}
}

// TestSimulatedCodeFails shows that each kind of disorder is found.
func TestSimulatedCodeFails(t *testing.T) {
	t.Chdir("../..")
	const src = `package p
import "maps"
import "slices"
import "time"
type s struct{ m map[int]*s }
type named map[string]time.Time
func f(v *s, c chan int, n named) {
	go f(v, c, n) // want
	select { case <-c: default: } // want
	for range v.m { } // want
	for range n { } // want
	for range maps.Keys(n) { } // want
	// any order: nothing sees it
	for range v.m { }
	go f(v, c, n) // not simulated: real backends only
	for range slices.Sorted(maps.Keys(n)) { }
	for range c { }
	// any order:
	for range v.m { } // want
}`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i, line := range strings.Split(src, "\n") {
		if strings.HasSuffix(line, "// want") {
			want = append(want, fmt.Sprintf("p.go:%d:", i+1))
		}
	}
	got := archDisorder(fset, []*ast.File{f})
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got %q, want lines %q", got, want)
	}
}

// archDisorder returns every go, select and loop over a map in files, those of one
// package, that has no comment to justify it.
func archDisorder(fset *token.FileSet, files []*ast.File) []string {
	// Imports are left unresolved: the package itself nearly always says which
	// expressions are maps, and reading the standard library would take longer
	// than everything else here.
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	conf := types.Config{Importer: archNoImporter{}, Error: func(error) {}}
	_, _ = conf.Check("p", fset, files, &info)

	var problems []string
	for _, f := range files {
		excused := map[int]bool{} // lines
		for _, g := range f.Comments {
			for _, c := range g.List {
				for _, mark := range []string{"// not simulated: ", "// any order: "} {
					if why, ok := strings.CutPrefix(c.Text, mark); ok && why != "" {
						excused[fset.Position(c.Pos()).Line] = true
						excused[fset.Position(g.End()).Line+1] = true
					}
				}
			}
		}
		sorted := map[ast.Node]bool{} // arguments of slices.Sorted…
		report := func(n ast.Node, what string) {
			if pos := fset.Position(n.Pos()); !excused[pos.Line] {
				problems = append(problems, fmt.Sprintf("%s: %s in code that the simulator runs: see DESIGN.md, Packages", pos, what))
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				report(n, "a goroutine")
			case *ast.SelectStmt:
				report(n, "a select")
			case *ast.RangeStmt:
				if typ := info.TypeOf(n.X); typ != nil {
					if _, ok := typ.Underlying().(*types.Map); ok {
						report(n, "a loop over a map")
					}
				}
			case *ast.CallExpr:
				switch pkg, name := archSelector(n.Fun); {
				case pkg == "slices" && strings.HasPrefix(name, "Sorted"):
					sorted[n.Args[0]] = true
				case pkg == "maps" && (name == "Keys" || name == "Values" || name == "All") && !sorted[n]:
					report(n, "maps."+name)
				}
			}
			return true
		})
	}
	return problems
}

func archSelector(e ast.Expr) (pkg, name string) {
	if s, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok {
			return x.Name, s.Sel.Name
		}
	}
	return "", ""
}

type archNoImporter struct{}

func (archNoImporter) Import(string) (*types.Package, error) {
	return nil, errors.New("left unresolved")
}
