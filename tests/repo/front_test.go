package repo

import (
	"go/build"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// frontMost is how many .go files the top folder may hold: people read it first.
const frontMost = 50

// TestFrontDoor: package weir is short to look over and knows no platform: each of its
// files is built everywhere, and it makes no system call by itself.
func TestFrontDoor(t *testing.T) {
	for _, problem := range frontDoor(t, root) {
		t.Error(problem)
	}
}

// TestFrontDoorFails: what TestFrontDoor forbids is found.
func TestFrontDoorFails(t *testing.T) {
	for name, text := range map[string]string{
		"a_linux.go": "package weir\n",
		"b.go":       "//go:build unix\n\npackage weir\n",
		"c.go":       "package weir\n\nimport _ \"golang.org/x/sys/unix\"\n",
		"d.go":       "package weir\n\nimport _ \"" + archModule + "/internal/backend/epoll\"\n",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if len(frontDoor(t, dir)) != 1 {
			t.Errorf("%s passes: %v", name, frontDoor(t, dir))
		}
	}
}

// frontDoor returns what is wrong with the package in a directory.
func frontDoor(t *testing.T, dir string) (problems []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) > frontMost {
		problems = append(problems, "there are more than 50 .go files in the top folder")
	}
	strange := build.Default
	strange.GOOS, strange.GOARCH = "none", "none"
	for _, name := range files {
		base := filepath.Base(name)
		if strings.HasSuffix(base, "_test.go") {
			continue
		}
		if ok, err := strange.MatchFile(dir, base); err != nil || !ok {
			problems = append(problems, base+" is not built on every platform")
		}
	}
	strange.GOOS, strange.GOARCH = build.Default.GOOS, build.Default.GOARCH
	p, err := strange.ImportDir(dir, 0)
	if p == nil || err != nil && len(p.IgnoredGoFiles) == 0 {
		t.Fatal(err)
	}
	for _, imported := range p.Imports {
		backend, isBackend := strings.CutPrefix(imported, archModule+"/internal/backend/")
		if strings.HasPrefix(imported, "golang.org/x/sys") || isBackend && backend != "choice" {
			problems = append(problems, "package weir imports "+imported)
		}
	}
	return problems
}
