// Package bugs holds bugs that others had, or weir once had, and shows that a
// test would find each of them again.
//
// A file NAME.patch puts one bug back. It is a unified diff whose header says
// what the bug was and which tests find it:
//
//	# L1: a relay dropped what it had read before a reset
//	# seen in: the relay of 2026-11-21
//	# found by: ./relay TestResetAfterBytes
//	# found by: WEIR_BACKEND=uring ./relay TestResetAfterBytes/tls -timeout 20s
//
//	--- a/relay/relay.go
//	+++ b/relay/relay.go
//	@@ -1,3 +1,3 @@
//	 context
//	-what is right
//	+what was wrong
//
// Line numbers do not matter: the context and the lines with a minus must occur
// exactly once in the file, so that a patch survives changes elsewhere. The patch
// is never applied to the tree; go's -overlay lays the changed files over it.
//
//	go test ./tests/bugs                             patches apply, the tests they name exist
//	go test ./tests/bugs -planted                    each of them is found
//	go test ./tests/bugs -planted -run 'TestPlanted/NAME$'
//
// A test of another module, such as ./hosts/glib, runs there, and is skipped where that module
// does not build, for example because a library is not installed.
//
// A bug that no small patch can put back has a row in a file rows_*_test.go.
package bugs

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	plantAll = flag.Bool("planted", false, "plant each bug and run the tests that find it")
	shard    = flag.String("shard", "", "K/N: only every Nth bug, beginning with the Kth")
)

const root = "../.."

// A row is a bug without a patch.
type row struct {
	id    string   // as patches have it: "L1"
	what  string   // what went wrong, in a sentence
	seen  string   // where it was seen; "" for weir alone
	tests []string // what checks it now: "./relay TestResetAfterBytes/tls"
}

// A patch puts one bug back.
type patch struct {
	name  string
	title string // "L1: a relay dropped …"
	found []finder
	files []patchFile
}

// A finder is a test that must fail while the bug is there.
type finder struct {
	env  []string
	pkg  string // "./relay"
	run  string // "TestResetAfterBytes/tls", as -run takes it
	args []string
}

type patchFile struct {
	path  string
	hunks []hunk
}

type hunk struct{ old, new string }

// patches reads every patch of this directory.
func patches(t *testing.T) []patch {
	t.Helper()
	names, err := filepath.Glob("*.patch")
	if err != nil {
		t.Fatal(err)
	}
	all := make([]patch, 0, len(names))
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := parsePatch(strings.TrimSuffix(name, ".patch"), string(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, p)
	}
	return all
}

func parsePatch(name, text string) (p patch, err error) {
	p.name = name
	var file *patchFile
	var h *hunk
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case file == nil && strings.HasPrefix(line, "# found by:"):
			f, err := parseFinder(strings.TrimPrefix(line, "# found by:"))
			if err != nil {
				return p, err
			}
			p.found = append(p.found, f)
		case file == nil && strings.HasPrefix(line, "# "):
			if p.title == "" {
				p.title = strings.TrimPrefix(line, "# ")
			}
		case strings.HasPrefix(line, "--- "):
		case strings.HasPrefix(line, "+++ b/"):
			p.files = append(p.files, patchFile{path: strings.TrimPrefix(line, "+++ b/")})
			file, h = &p.files[len(p.files)-1], nil
		case strings.HasPrefix(line, "@@") && file != nil:
			file.hunks = append(file.hunks, hunk{})
			h = &file.hunks[len(file.hunks)-1]
		case h == nil || strings.HasPrefix(line, `\`) || strings.HasPrefix(line, "diff "):
		case strings.HasPrefix(line, "-"):
			h.old += line[1:] + "\n"
		case strings.HasPrefix(line, "+"):
			h.new += line[1:] + "\n"
		case line == "":
			h.old += "\n" // an editor removed the blank from an empty line of context
			h.new += "\n"
		default:
			h.old += line[1:] + "\n"
			h.new += line[1:] + "\n"
		}
	}
	switch {
	case p.title == "" || !titleForm.MatchString(p.title):
		return p, fmt.Errorf("its first line is %q, not \"# ID: what went wrong\"", p.title)
	case len(p.found) == 0:
		return p, fmt.Errorf("it has no line \"# found by: ./package TestName\"")
	case len(p.files) == 0:
		return p, fmt.Errorf("it changes no file")
	}
	return p, nil
}

var titleForm = regexp.MustCompile(`^[A-Z]+[0-9]*[a-z]?(, [A-Z]+[0-9]*[a-z]?)*: .`)

func parseFinder(s string) (f finder, err error) {
	words := strings.Fields(s)
	for len(words) > 0 && strings.Contains(words[0], "=") && !strings.HasPrefix(words[0], ".") {
		f.env = append(f.env, words[0])
		words = words[1:]
	}
	if len(words) < 2 || words[0] != "." && !strings.HasPrefix(words[0], "./") || !strings.HasPrefix(words[1], "Test") && !strings.HasPrefix(words[1], "Fuzz") && !strings.HasPrefix(words[1], "Example") {
		return f, fmt.Errorf("%q is not \"[NAME=VALUE] ./package TestName[/case] [flags]\"", s)
	}
	f.pkg, f.run, f.args = words[0], words[1], words[2:]
	return f, nil
}

// apply returns the contents of the patch's files with the bug in them, by path.
func (p patch) apply() (map[string]string, error) {
	out := map[string]string{}
	for _, f := range p.files {
		b, err := os.ReadFile(filepath.Join(root, f.path))
		if err != nil {
			return nil, err
		}
		text := string(b)
		for i, h := range f.hunks {
			switch n := strings.Count(text, h.old); {
			case h.old == "":
				return nil, fmt.Errorf("%s, hunk %d has no context", f.path, i+1)
			case n != 1:
				return nil, fmt.Errorf("%s, hunk %d: its lines occur %d times, want once:\n%s", f.path, i+1, n, h.old)
			case h.old == h.new:
				return nil, fmt.Errorf("%s, hunk %d changes nothing", f.path, i+1)
			}
			text = strings.Replace(text, h.old, h.new, 1)
		}
		out[f.path] = text
	}
	return out, nil
}

// overlay writes the file that go's -overlay takes.
func (p patch) overlay(t *testing.T) string {
	t.Helper()
	files, err := p.apply()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	for path, text := range files {
		abs, err := filepath.Abs(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, strings.ReplaceAll(path, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[abs] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestPlanted checks that each bug can be planted and that the tests it names
// exist; with -planted it also runs them and checks that each of them fails.
func TestPlanted(t *testing.T) {
	k, n := shards(t)
	for i, p := range patches(t) {
		t.Run(p.name, func(t *testing.T) {
			if _, err := p.apply(); err != nil {
				t.Fatal(err)
			}
			for _, f := range p.found {
				if err := f.exists(); err != nil {
					t.Fatal(err)
				}
			}
			if !*plantAll || i%n != k {
				return
			}
			t.Parallel()
			overlay := p.overlay(t)
			for _, f := range p.found {
				f.mustFail(t, overlay)
			}
			t.Logf("%s: found", p.title)
		})
	}
}

func shards(t *testing.T) (k, n int) {
	t.Helper()
	if *shard == "" {
		return 0, 1
	}
	if _, err := fmt.Sscanf(*shard, "%d/%d", &k, &n); err != nil || k < 1 || k > n {
		t.Fatalf("-shard %q is not K/N with K from 1 to N", *shard)
	}
	return k - 1, n
}

// mustFail runs the test with the bug in place.
func (f finder) mustFail(t *testing.T, overlay string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir, pkg := f.module()
	args := append([]string{"test", "-count=1", "-timeout=60s", "-overlay=" + overlay, "-run=" + f.pattern()}, f.args...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	if i := slices.Index(f.args, "-args"); i >= 0 {
		cmd.Args = slices.Concat([]string{"go"}, args[:len(args)-len(f.args)+i], []string{pkg}, f.args[i:])
	}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), f.env...)
	if dir != root {
		build := exec.CommandContext(ctx, "go", "test", "-run=^$", pkg)
		build.Dir = dir
		if out, err := build.CombinedOutput(); err != nil {
			t.Skipf("skipped: %s does not build here: %v\n%s", f.pkg, err, tail(string(out)))
		}
		// For what the test itself builds.
		cmd.Env = append(cmd.Env, "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)
	}
	defer alone(cmd)()
	out, err := cmd.CombinedOutput()
	text := string(out)
	switch {
	case ctx.Err() != nil:
		t.Errorf("%s %s did not end", f.pkg, f.run)
	case strings.Contains(text, "[build failed]") || strings.Contains(text, "[setup failed]"):
		t.Errorf("with the bug %s does not build:\n%s", f.pkg, tail(text))
	case strings.Contains(text, "no tests to run") || strings.Contains(text, "no test files"):
		t.Errorf("%s has no test %s", f.pkg, f.run)
	case err == nil:
		t.Errorf("%s %s does not find it:\n%s", f.pkg, f.run, tail(text))
	case !strings.Contains(text, "--- FAIL") && !strings.Contains(text, "panic: ") && !strings.Contains(text, "fatal error: "):
		t.Errorf("%s %s failed in another way: %v\n%s", f.pkg, f.run, err, tail(text))
	}
}

// module is the directory of the module that has the test's package, and the package's name
// there.
func (f finder) module() (dir, pkg string) {
	at, rel := path.Clean(f.pkg), "."
	for at != "." {
		if _, err := os.Stat(filepath.Join(root, at, "go.mod")); err == nil {
			break
		}
		at, rel = path.Dir(at), path.Join(path.Base(at), rel)
	}
	return filepath.Join(root, at), "./" + rel
}

func tail(s string) string {
	if len(s) > 2000 {
		return "…" + s[len(s)-2000:]
	}
	return s
}

// pattern anchors the test's name.
func (f finder) pattern() string {
	name, rest, cases := strings.Cut(f.run, "/")
	if cases {
		return "^" + name + "$/" + rest
	}
	return "^" + name + "$"
}

// checkRows checks that the tests named in rows exist.
func checkRows(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		if !titleForm.MatchString(r.id+": "+r.what) || len(r.tests) == 0 {
			t.Errorf("the row %q lacks an id, a sentence or a test", r.id)
		}
		for _, s := range r.tests {
			f, err := parseFinder(s)
			if err == nil {
				err = f.exists()
			}
			if err != nil {
				t.Errorf("%s: %v", r.id, err)
			}
		}
	}
}

// exists reports whether the package has the test, and a case of that name. The
// case's name may be in a suite that the test runs.
func (f finder) exists() error {
	name, rest, cases := strings.Cut(f.run, "/")
	in, err := sourcesOf(f.pkg)
	if err != nil {
		return err
	}
	if !in.funcs[name] {
		return fmt.Errorf("%s has no test %s", f.pkg, name)
	}
	if !cases {
		return nil
	}
	last := strings.Trim(rest[strings.LastIndexByte(rest, '/')+1:], "^$")
	if slices.Contains([]string{"epoll", "epoll-et", "uring", "portable", "sim"}, last) || regexp.QuoteMeta(last) != last {
		return nil
	}
	for _, dir := range []string{f.pkg, "./weirtest", "./internal/backend/backendtest"} {
		in, err := sourcesOf(dir)
		if err != nil {
			return err
		}
		for s := range in.words {
			if strings.Contains(s, last) {
				return nil
			}
		}
	}
	return fmt.Errorf("%s %s: there is no case %q", f.pkg, name, last)
}

// sources are the names of a package's functions and its strings, in the form
// that case names have.
type sources struct{ funcs, words map[string]bool }

func sourcesOf(pkg string) (sources, error) {
	s := sources{map[string]bool{}, map[string]bool{}}
	names, err := filepath.Glob(filepath.Join(root, pkg, "*.go"))
	if err != nil {
		return s, err
	}
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return s, err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && strings.HasSuffix(name, "_test.go") {
					s.funcs[n.Name.Name] = true
				}
			case *ast.BasicLit:
				if v, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					s.words[strings.ReplaceAll(v, " ", "_")] = true
				}
			}
			return true
		})
	}
	return s, nil
}

// TestPatchForm shows that a patch which cannot be planted is refused.
func TestPatchForm(t *testing.T) {
	const head = "# X1: a bug\n# found by: ./tests/bugs TestPatchForm\n\n--- a/go.mod\n+++ b/go.mod\n@@ -1 +1 @@\n"
	for _, c := range []struct{ text, want string }{
		{head + "-module github.com/weir-io/weir\n+module other\n", ""},
		{head + "-no such line\n+other\n", "occur 0 times"},
		{head + " module github.com/weir-io/weir\n", "changes nothing"},
		{strings.Replace(head, "# X1: a bug\n", "", 1), "not \"# ID: what went wrong\""},
		{strings.Replace(head, "# found", "# not found", 1), "no line"},
		{strings.Replace(head, "./tests", "tests", 1), "is not \"[NAME=VALUE]"},
	} {
		p, err := parsePatch("x", c.text)
		if err == nil {
			_, err = p.apply()
		}
		if got := fmt.Sprint(err); c.want == "" && err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%q\ngot %s, want %q", c.text, got, c.want)
		}
	}
}
