package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReplayChecked: a file that is not a recording is found at the start, and
// its line is named; nothing reports ready.
func TestReplayChecked(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"text": "root:x:0:0\n", "empty": "", "late": "1 +0.000000 + here\nnonsense\n", "good": "1 +0.000000 + here\n1 +0.000001 < 2 \"hi\"\n1 +0.000002 [\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ end, problem, next string }{
		{"text", "line 1 of the recording: it does not begin with a connection's number", "A recording is what +record:FILE writes"},
		{"late", "line 2 of the recording: it does not begin with a connection's number", "A recording is what +record:FILE writes"},
		{"empty", "the recording is empty", "A recording is what +record:FILE writes"},
		{"good,conn=7", "the recording has no connection 7", "A recording is what +record:FILE writes"},
		{"nothing", "no such file", "Nothing is there: ls -l " + dir},
	} {
		path, _, _ := strings.Cut(filepath.Join(dir, c.end), ",")
		p := start(t, "0", "replay:"+filepath.Join(dir, c.end))
		if code := p.end(); code != exitFailure || !strings.Contains(p.said(), "cannot set up replay:"+path+": "+c.problem) ||
			!strings.Contains(p.said(), c.next) || strings.Contains(p.said(), "ready") {
			t.Errorf("%s: code %d:\n%s", c.end, code, p.said())
		}
	}
	p := start(t, "0", "replay:"+filepath.Join(dir, "good"))
	if err := want(dial(t, p.listening()), "hi"); err != nil {
		t.Error(err)
	}
}
