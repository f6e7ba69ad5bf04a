package repo

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReadme checks the README: its program and its test are those of the example,
// and its links lead to something.
func TestReadme(t *testing.T) {
	t.Chdir("../..")
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	rest := string(readme)
	for _, file := range []string{"examples/echo/main.go", "examples/echo/protocol_test.go"} {
		_, code, ok := strings.Cut(rest, "```go\n")
		code, after, closed := strings.Cut(code, "```")
		if !ok || !closed {
			t.Fatalf("the README has no code of %s", file)
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if code != string(want) {
			t.Errorf("the README's code is not %s:\n%s", file, code)
		}
		rest = after
	}
	links := regexp.MustCompile(`\]\(([^):]+)\)`).FindAllStringSubmatch(string(readme), -1)
	if len(links) == 0 {
		t.Error("the README links to nothing")
	}
	for _, l := range links {
		if _, err := os.Stat(l[1]); err != nil {
			t.Errorf("the README links to %s: %v", l[1], err)
		}
	}
}

// TestPackagesListed: README.md and the package's own documentation name every
// package that a program can import.
func TestPackagesListed(t *testing.T) {
	t.Chdir("../..")
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	design, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\|").FindAllStringSubmatch(string(design), -1)
	if len(rows) == 0 {
		t.Fatal("DESIGN.md has no table of packages")
	}
	for _, r := range rows {
		name := r[1]
		if name == "weir" || strings.Contains("/"+name, "/internal/") || strings.HasPrefix(name, "cmd/") {
			continue
		}
		if _, err := os.Stat(name); err != nil {
			continue // to come
		}
		if !strings.Contains(string(readme), "`"+name+"`") {
			t.Errorf("README.md does not name %s", name)
		}
		if !regexp.MustCompile(`(?m)^//   - .*\b` + regexp.QuoteMeta(name) + `\b.*:`).Match(doc) {
			t.Errorf("doc.go does not name %s", name)
		}
	}
}
