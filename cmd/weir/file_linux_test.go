package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// written makes a file for a test.
func written(t *testing.T, has string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(has), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFile: a file is read, and written, as a one-shot.
func TestFile(t *testing.T) {
	long := strings.Repeat("0123456789abcde\n", 200_000)
	in := written(t, long)
	out := filepath.Join(filepath.Dir(in), "out")
	for _, c := range []struct {
		args  []string
		stdin string
		out   string // of weir, where it has no more than 100 bytes
		file  string // what the file out has then
		code  int
	}{
		{args: []string{"file:" + in, "-"}, out: long},
		{args: []string{"-", "file:" + in}, out: long, stdin: long},
		{args: []string{"file:" + in + ",at=3199990", "-"}, out: "6789abcde\n"},
		{args: []string{"-", "file:" + out + ",create"}, stdin: long, file: long},
		{args: []string{"-", "file:" + out + ",append"}, stdin: "more\n", file: long + "more\n"},
		{args: []string{"-", "file:" + out + ",write,at=5"}, stdin: "FGHIJ", file: long[:5] + "FGHIJ" + long[10:] + "more\n"},
		{args: []string{"-", "file:" + out + ",truncate"}, stdin: "little\n", file: "little\n"},
		{args: []string{"-", "file:" + out + ",read,append"}, stdin: "by little\n", out: "little\n", file: "little\nby little\n"},
		{args: []string{"file:" + in, "file:" + out + ",truncate"}, file: long},
		{args: []string{"file:" + out + ".gz,create+zstd", "file:" + in}, stdin: ""},
		{args: []string{"file:" + out + ".gz+zstd", "-"}, out: long},
	} {
		p := prepare(t, "weir", c.args...)
		var got bytes.Buffer
		p.Stdin, p.Stdout = strings.NewReader(c.stdin), &got
		p.begin()
		if code := p.end(); code != c.code {
			t.Errorf("%q: code %d; it said\n%s", c.args, code, p.said())
		}
		// What is appended may come soon enough to be read too.
		both := strings.HasSuffix(c.args[1], "read,append") && got.String() == c.file
		if got.String() != c.out && !both {
			t.Errorf("%q: %d bytes, want %d", c.args, got.Len(), len(c.out))
		}
		if c.file != "" {
			if has, err := os.ReadFile(out); err != nil || string(has) != c.file {
				t.Errorf("%q: the file has %d bytes, want %d; %v", c.args, len(has), len(c.file), err)
			}
		}
	}
}

// TestFileServed: each connection of a server has the file to itself, and those that
// append lose nothing of each other's. A client that has seen the end of its connection
// finds its bytes in the file.
func TestFileServed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	p := start(t, "tcp-listen:127.0.0.1:0", "file:"+path+",append,create,mode=0600")
	addr := p.listening()
	const clients, lines = 20, 200
	done := make(chan error, clients)
	for i := range clients {
		c := dial(t, addr)
		go func() {
			for j := range lines {
				if err := write(c, fmt.Sprintf("%d %d\n", i, j)); err != nil {
					done <- err
					return
				}
			}
			if err := c.CloseWrite(); err != nil {
				done <- err
				return
			}
			_, err := c.Read(make([]byte, 1))
			if err == nil {
				err = fmt.Errorf("client %d got a byte", i)
			} else if err.Error() == "EOF" {
				err = nil
			}
			done <- err
		}()
	}
	for range clients {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	has, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, l := range strings.Split(strings.TrimSpace(string(has)), "\n") {
		seen[l] = true
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 || len(seen) != clients*lines {
		t.Errorf("%d different lines of %d, mode %v, %v", len(seen), clients*lines, st.Mode(), err)
	}
	q := start(t, "tcp-listen:127.0.0.1:0", "file:"+path)
	if got := asked(t, q.listening(), "GET / HTTP/1.0\r\n\r\n"); got != string(has) {
		t.Errorf("%d bytes were served of %d", len(got), len(has))
	}
}

// TestFileFollow: a client gets what is written to a file, as it is written.
func TestFileFollow(t *testing.T) {
	path := written(t, "first\n")
	p := start(t, "tcp-listen:127.0.0.1:0", "file:"+path+",follow")
	c := dial(t, p.listening())
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for _, want := range []string{"first\n", "second\n", "third\n"} {
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != want {
			t.Fatalf("%q, %v; want %q", buf[:n], err, want)
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		next := map[string]string{"first\n": "second\n", "second\n": "third\n"}[want]
		if _, err := f.WriteString(next); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFileFails: what cannot be opened or written is said, with the next step.
func TestFileFails(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	none := filepath.Join(dir, "none")
	for _, c := range []struct {
		arg  string
		code int
		says []string
	}{
		{"file:" + none, exitFailure, []string{"cannot open file:" + none + ": no such file", "Nothing is there"}},
		{"file:" + none + ",append", exitFailure, []string{"no such file", "add ,create"}},
		{"file:" + dir, exitFailure, []string{"it is a directory, not a file", "file:" + dir + "/NAME"}},
		{"file:" + dir + "/no/file,create", exitFailure, []string{"no such file", "mkdir -p " + dir + "/no"}},
		{"file:/dev/full,write", exitFailure, []string{"it is a device, not a file", "> /dev/full"}},
		{"file:" + fifo, exitFailure, []string{"it is a named pipe, not a file", "pipe:" + fifo}},
		{"file:" + fifo + ",append,create", exitFailure, []string{"it is a named pipe, not a file"}},
		{"file:/dev/null,write", exitFailure, []string{"it is a device, not a file", "a kind of its own for that: null"}},
		{"file", exitUsage, []string{"file"}},
		{"file:x,mode=0600", exitUsage, []string{"mode is for a file that create makes"}},
		{"file:x,append,at=5", exitUsage, []string{"append writes at the end"}},
		{"file:x,truncate,at=5", exitUsage, []string{"truncate empties the file"}},
		{"file:x,write,append", exitUsage, []string{"append"}},
	} {
		p := prepare(t, "weir", "-", c.arg)
		p.Stdin = strings.NewReader("in\n")
		p.begin()
		if code := p.end(); code != c.code {
			t.Errorf("%s: code %d, want %d", c.arg, code, c.code)
		}
		for _, s := range c.says {
			if !strings.Contains(p.said(), s) {
				t.Errorf("%s: it does not say %q, but\n%s", c.arg, s, p.said())
			}
		}
	}
}

// TestFileFull: a disk that is full is a failure, and the other side does not take it
// for a clean end.
func TestFileFull(t *testing.T) {
	dir := t.TempDir()
	p, from := onSmallDisk(t, dir, "tcp-listen:127.0.0.1:0", "file:"+filepath.Join(dir, "out")+",create")
	c := dial(t, p.listening())
	_ = write(c, strings.Repeat("too much for it ", 20_000)) // it may have failed by then
	_ = c.CloseWrite()
	if n, err := c.Read(make([]byte, 1)); err == nil || err.Error() == "EOF" {
		t.Errorf("the client got %d bytes, %v", n, err)
	}
	p.line("no space left on device", 1)
	if st, err := os.Stat(filepath.Join(from(), "out")); err != nil || st.Size() != 64<<10 {
		t.Errorf("%v, %v", st, err)
	}
}
