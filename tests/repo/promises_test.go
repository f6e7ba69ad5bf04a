// Package repo checks what the repository says about itself: that every
// reference leads somewhere.
package repo

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// promises are the numbers that docs/promises.md defines: "R24", "G3",
// "behaviour 52", "bug 8", "L3".
func promises(t *testing.T) map[string]bool {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "docs", "promises.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]bool{}
	section := ""
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		line := scan.Text()
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = name
		}
		if m := lettered.FindStringSubmatch(line); m != nil {
			all[m[1]] = true
		}
		if m := numbered.FindStringSubmatch(line); m != nil {
			switch section {
			case "Behaviours":
				all["behaviour "+m[1]] = true
			case "Bugs that others had":
				all["bug "+m[1]] = true
			}
		}
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

var (
	lettered = regexp.MustCompile(`^- \*\*([RGLCNS][0-9]+)\*\* .`)
	numbered = regexp.MustCompile(`^([0-9]+)\. .`)

	// What a text cites.
	letters = regexp.MustCompile(`\b([RGLCNS])([0-9]{1,2})\b`)
	words   = regexp.MustCompile(`\b([Bb]ehaviours?|[Bb]ugs?) ([0-9]+(?:(?:, | and | to )[0-9]+)*)`)
	numbers = regexp.MustCompile(`[0-9]+`)
	ranges  = regexp.MustCompile(`([0-9]+) to ([0-9]+)`)
	comment = regexp.MustCompile(`//.*|t\.(Run|Error|Fatal|Log)f?\(.*|^[^/]*problem.*`)
)

// cited returns what one line cites. In Go only comments and messages count,
// because R1 can also be a variable.
func cited(line string, isGo bool) []string {
	var all []string
	if isGo {
		line = comment.FindString(line)
	}
	for _, m := range letters.FindAllStringSubmatch(line, -1) {
		all = append(all, m[0])
	}
	for _, m := range words.FindAllStringSubmatch(line, -1) {
		kind := strings.TrimSuffix(strings.ToLower(m[1]), "s") + " "
		for _, n := range numbers.FindAllString(m[2], -1) {
			all = append(all, kind+n)
		}
		for _, r := range ranges.FindAllStringSubmatch(m[2], -1) {
			from, _ := strconv.Atoi(r[1])
			to, _ := strconv.Atoi(r[2])
			for n := from; n <= to; n++ {
				all = append(all, kind+strconv.Itoa(n))
			}
		}
	}
	return all
}

// astray returns what is wrong with the references in a text, and how many
// references there are.
func astray(name, text string, have map[string]bool) (bad []string, count int) {
	for i, line := range strings.Split(text, "\n") {
		if strings.HasSuffix(name, ".patch") && !strings.HasPrefix(line, "# ") {
			continue // the patch itself, whose lines are those of another file
		}
		for _, ref := range cited(line, strings.HasSuffix(name, ".go")) {
			count++
			if !have[ref] {
				bad = append(bad, fmt.Sprintf("%s:%d cites %s, which docs/promises.md does not have", name, i+1, ref))
			}
		}
		if m := elsewhere.FindString(line); m != "" {
			bad = append(bad, fmt.Sprintf("%s:%d cites %s, which is not in the repository", name, i+1, m))
		}
	}
	return bad, count
}

// TestPromises: the page has every number, and every citation is of a number
// that it has.
func TestPromises(t *testing.T) {
	have := promises(t)
	for kind, last := range map[string]int{"R": 81, "G": 10, "behaviour ": 95, "bug ": 25, "L": 16, "C": 10, "N": 5, "S": 15} {
		for n := 1; n <= last; n++ {
			if name := kind + strconv.Itoa(n); !have[name] {
				t.Errorf("docs/promises.md does not have %s", name)
			}
		}
	}
	count := 0
	for name, text := range texts(t, ".go", ".md", ".sh", ".patch", ".ci/run", ".ci/night") {
		if name == "docs/promises.md" || strings.HasPrefix(name, "docs/bench/") || name == "tests/repo/promises_test.go" {
			continue
		}
		bad, n := astray(name, text, have)
		count += n
		for _, problem := range bad {
			t.Error(problem)
		}
	}
	if count < 600 {
		t.Errorf("%d references were found; there were 876 when this was written", count)
	}
	t.Logf("%d references resolve", count)
}

// elsewhere are documents that the repository does not have.
var elsewhere = regexp.MustCompile(`\b(REQUIREMENTS|BEHAVIOURS|RELIABILITY|COMMAND|ARCHITECTURE|PERFORMANCE|STYLE|FAULTS|HOUSE)(\.md\b|, [A-Z][a-z])`)

// TestPromisesDangle: a dangling reference is found in every kind of file.
func TestPromisesDangle(t *testing.T) {
	have := promises(t)
	for _, c := range []struct{ name, text, want string }{
		{"a.go", "package a\n\n// F keeps R82.\nfunc F() {}\n", "a.go:3 cites R82, "},
		{"a.go", "// behaviour 96\n", "a.go:1 cites behaviour 96, "},
		{"a_test.go", "\tt.Errorf(\"lost twice (G11)\")\n", "a_test.go:1 cites G11, "},
		{"a.md", "as bug 26 was\n", "a.md:1 cites bug 26, "},
		{"a.sh", "# S16\n", "a.sh:1 cites S16, "},
		{"a.patch", "# L17: gone\n+// R99 is a line of another file\n", "a.patch:1 cites L17, "},
		{"a.go", "// see RELIABILITY.md\n", "a.go:1 cites RELIABILITY.md, "},
		{"a.go", "// R81, behaviour 95, G10, bug 25, L16, C10, N5, S15\nvar R99, S99 int\n", ""},
	} {
		bad, _ := astray(c.name, c.text, have)
		if got := strings.Join(bad, "; "); (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) || len(bad) > 1 {
			t.Errorf("%s with %q: %q, want %q", c.name, c.text, got, c.want)
		}
	}
}

// TestCited shows that a dangling reference is seen.
func TestCited(t *testing.T) {
	for line, want := range map[string]string{
		"// the tail (R29, behaviours 35 and 36)":  "R29 behaviour 35 behaviour 36",
		"// behaviours 26, 27, 29 and the end":     "behaviour 26 behaviour 27 behaviour 29",
		"// bugs 8 to 10":                          "bug 8 bug 10 bug 8 bug 9 bug 10",
		`	t.Error("lost twice (G1)")`:              "G1",
		"R5 := registers[2] // no reference in it": "",
		"// R99 dangles":                           "R99",
	} {
		if got := strings.Join(cited(line, true), " "); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}
