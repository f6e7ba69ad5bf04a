package repo

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAPINamesNothingInternal: no exported function, method or field has a type of an
// internal package, which users cannot name. What follows an "=" is allowed: the value
// of a constant or variable, and the aliases by which package driver gives names to the
// contract's types.
func TestAPINamesNothingInternal(t *testing.T) {
	t.Chdir("../..")
	var internal []string
	for _, dir := range archDirs(t) {
		if strings.Contains("/"+dir+"/", "/internal/") {
			internal = append(internal, path.Base(filepath.ToSlash(dir)))
		}
	}
	names := regexp.MustCompile(`\b(?:` + strings.Join(internal, "|") + `)\.[A-Z]\w*`)
	var files []string
	for _, dir := range []string{"api/*.txt", "api/*/*.txt", "api/*/*/*.txt"} {
		more, err := filepath.Glob(dir)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	if len(files) < 10 || len(internal) < 10 {
		t.Fatalf("%d files in api, %d internal packages: too few", len(files), len(internal))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range apiDeclarations(string(text)) {
			if found := names.FindString(line); found != "" {
				t.Errorf("%s: %s is of an internal package, so users cannot name it: %s", file, found, line)
			}
		}
	}
}

// apiDeclarations returns the lines of doc, which is what go doc prints, that declare
// something, without their comments and what follows an "=".
func apiDeclarations(doc string) []string {
	var lines []string
	began := false
	for line := range strings.Lines(doc) {
		switch strings.TrimSpace(line) {
		case "CONSTANTS", "VARIABLES", "FUNCTIONS", "TYPES":
			began = true // the package's comment ends here
		}
		if !began || strings.HasPrefix(line, "    ") {
			continue
		}
		line, _, _ = strings.Cut(line, "//")
		line, _, _ = strings.Cut(line, "=")
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
