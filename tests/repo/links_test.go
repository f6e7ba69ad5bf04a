package repo

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// texts are the files of the repository that end in one of the given suffixes,
// by their paths below the root. Other people's texts (testdata) are left out.
func texts(t *testing.T, suffixes ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", "bin", "testdata"}, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(name, s) }) {
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		all[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("no file ends in one of %v", suffixes)
	}
	return all
}

// exists reports whether the repository has a file or directory of this path.
func exists(name string) bool {
	_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
	return err == nil
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	code    = regexp.MustCompile("(?ms)^```.*?^```|`[^`\n]*`")
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors are the places in a document that a link can name, as GitHub spells them.
func anchors(text string) []string {
	var all []string
	for _, h := range heading.FindAllStringSubmatch(text, -1) {
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, h[1]))
	}
	return all
}

// dangling returns the links in a document that lead nowhere. docs are all the
// documents there are.
func dangling(name, text string, docs map[string]string, exists func(string) bool) []string {
	var bad []string
	for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
		if strings.Contains(m[1], ":") {
			continue // another site
		}
		file, anchor, _ := strings.Cut(m[1], "#")
		target := name
		if file != "" {
			target = path.Join(path.Dir(name), file)
		}
		if !exists(target) || anchor != "" && !slices.Contains(anchors(docs[target]), anchor) {
			bad = append(bad, m[1])
		}
	}
	return bad
}

// TestLinks: every link from a document of the repository to another file in it
// leads to one, and to a heading there if it names one.
func TestLinks(t *testing.T) {
	docs := texts(t, ".md")
	count := 0
	for name, text := range docs {
		count += len(link.FindAllString(text, -1))
		for _, l := range dangling(name, text, docs, exists) {
			t.Errorf("%s links to %s, which is not there", name, l)
		}
	}
	if count < 50 {
		t.Errorf("%d links were found; there were 83 when this was written", count)
	}
}

// TestLinksDangle shows which links count as dangling.
func TestLinksDangle(t *testing.T) {
	docs := map[string]string{"docs/a.md": "# What `a` is: 1st\n", "docs/b.md": ""}
	has := func(name string) bool { _, ok := docs[name]; return ok }
	for text, want := range map[string]string{
		"[a](a.md) [b](../docs/b.md)":      "",
		"[a](a.md#what-a-is-1st)":          "",
		"[a](a.md#else)":                   "a.md#else",
		"[c](c.md)":                        "c.md",
		"[a](docs/a.md)":                   "docs/a.md", // links are relative to their file
		"[elsewhere](https://example.org)": "",
		"`f[i](x)`":                        "",
		"```\nf[i](x)\n```\n[c](c.md)":     "c.md",
	} {
		if got := strings.Join(dangling("docs/b.md", text, docs, has), " "); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// document is the name of a document, as it appears in a comment or a sentence.
var document = regexp.MustCompile(`(?:^|[^A-Za-z0-9_./:-])([A-Za-z0-9_./-]*[A-Za-z0-9_]\.md)\b`)

// TestDocumentsNamed: a document that a comment, a script or another document
// names is in the repository. A name is relative to the root, to docs, to
// docs/bench, where the benchmarks write theirs, or to the directory of the
// file that names it. The tests here name documents that do not exist.
func TestDocumentsNamed(t *testing.T) {
	count := 0
	for name, text := range texts(t, ".go", ".md", ".sh", ".yml", ".mod", "Makefile", ".ci/run", ".ci/night", ".ci/api") {
		if strings.HasPrefix(name, "tests/repo/") || name == "docs/bugs-tried.md" {
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			for _, m := range document.FindAllStringSubmatch(line, -1) {
				count++
				from := []string{"", path.Dir(name), "docs", "docs/bench"}
				if !slices.ContainsFunc(from, func(dir string) bool { return exists(path.Join(dir, m[1])) }) {
					t.Errorf("%s:%d names %s, which is not in the repository", name, i+1, m[1])
				}
			}
		}
	}
	if count < 50 {
		t.Errorf("%d documents were named; there were 109 when this was written", count)
	}
}
