package weir_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReadme holds the README true: its program is the example that is tested,
// and what it links to is there.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "```go\n")
	program, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("the README has no program")
	}
	example, err := os.ReadFile("examples/echo/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if program != string(example) {
		t.Errorf("the README's program is not examples/echo/main.go:\n%s", program)
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
