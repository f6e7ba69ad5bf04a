package main

import (
	"os"
	"strings"
	"testing"
)

// TestReadmeExamples parses what the README tells people to type: each of its
// command lines is valid (docs/promises.md, The command).
func TestReadmeExamples(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, line := range strings.Split(string(readme), "\n") {
		command, indented := strings.CutPrefix(line, "    ")
		if _, right, piped := strings.Cut(command, " | "); piped {
			command = right
		}
		args, ours := strings.CutPrefix(command, "weir ")
		if !indented || !ours {
			continue
		}
		seen++
		args = strings.TrimPrefix(args, "explain ")
		if r := call(t, append([]string{"explain"}, strings.Fields(args)...)...); r.code != exitOK || r.out == "" {
			t.Errorf("weir %s: code %d\n%s", args, r.code, r.err)
		}
	}
	if seen != 4 {
		t.Errorf("the README has %d examples of the command, not four", seen)
	}
}
