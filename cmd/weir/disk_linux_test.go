package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir/layer"
)

// onSmallDisk starts weir in a mount namespace of its own, where dir is a disk of
// 64 KiB, and returns the path of dir for the test. The path can be used once
// weir is ready.
func onSmallDisk(t *testing.T, dir string, args ...string) (p *process, from func() string) {
	t.Helper()
	if out, err := exec.Command("unshare", "-rm", "true").CombinedOutput(); err != nil {
		t.Skipf("no mount namespaces here: %v %s", err, out)
	}
	p = prepare(t, "weir")
	exe := p.Path
	p.Cmd = exec.Command("unshare", append([]string{"-rm", "sh", "-c", `mount -t tmpfs -o size=64k none "$1" && shift && exec "$@"`, "sh", dir, exe}, args...)...)
	p.Env = append(os.Environ(), "WEIR_TEST_AS=weir")
	p.begin()
	return p, func() string { return fmt.Sprintf("/proc/%d/root%s", p.Process.Pid, dir) }
}

// fill leaves no room on the disk of dir beyond what its files already have.
func fill(t *testing.T, dir string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	return ballast
}

// TestFullDisk: a log or a recording whose disk is full loses what comes then,
// reports this on standard error, holds up no one, and continues with a line about
// it when there is room again.
func TestFullDisk(t *testing.T) {
	for _, c := range []string{"record:%s", "log,to=%s"} {
		t.Run(c[:3], func(t *testing.T) {
			back := server(t, answer(strings.ToUpper))
			dir := t.TempDir()
			p, from := onSmallDisk(t, dir, "0+"+fmt.Sprintf(c, filepath.Join(dir, "out")), back)
			at := p.listening()
			if err := roundTrip(at, "the first one"); err != nil {
				t.Fatal(err)
			}
			// Its last line is written before the disk is full.
			for deadline := time.Now().Add(patience); ; {
				b, err := os.ReadFile(filepath.Join(from(), "out"))
				if err != nil || time.Now().After(deadline) {
					t.Fatalf("%v, %q", err, b)
				}
				if strings.HasSuffix(string(b), " -\n") {
					break
				}
			}
			ballast := fill(t, from())
			request := strings.Repeat("some bytes ", 400)
			for i := range 20 {
				if err := roundTrip(at, request); err != nil {
					t.Fatalf("connection %d: %v", i, err)
				}
			}
			p.line("cannot write to "+filepath.Join(dir, "out")+": no space left on device", 1)
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(patience); !strings.Contains(p.said(), "can be written to again"); {
				if err := roundTrip(at, "small"); err != nil || time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			if err := roundTrip(at, "the last one"); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(from(), "out")
			for deadline := time.Now().Add(patience); ; {
				b, err := os.ReadFile(out)
				if err != nil || time.Now().After(deadline) {
					t.Fatalf("%v, %d bytes", err, len(b))
				}
				if text := string(b); strings.Contains(text, "THE LAST ONE") {
					if !strings.Contains(text, "were left out here: no space left on device") {
						t.Errorf("nothing says that something is missing:\n%.2000s", text)
					}
					break
				}
			}
			if c[:3] == "rec" {
				f, err := os.Open(out)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				events, err := layer.ReadRecording(f, 1)
				if err != nil || events[len(events)-1].What != layer.Lost {
					t.Fatalf("the first connection: %v, %v", events, err)
				}
			}
			p.signal(os.Interrupt)
			if code := p.end(); code != exitOK || !strings.Contains(p.said(), "lacks ") {
				t.Errorf("code %d, and it does not say at its end that something is missing", code)
			}
		})
	}
}

// TestFullDiskLossless: with ,lossless a connection waits while the disk is full,
// and the recording then has all of it.
func TestFullDiskLossless(t *testing.T) {
	back := server(t, answer(strings.ToUpper))
	dir := t.TempDir()
	p, from := onSmallDisk(t, dir, "0+record:"+filepath.Join(dir, "out")+",lossless", back)
	at := p.listening()
	ballast := fill(t, from())
	request := strings.Repeat("much more than waits for a disk ", 200_000) // 6.4 MB
	done := make(chan error, 1)
	go func() { done <- roundTrip(at, request) }()
	p.line("its connections wait", 1)
	select {
	case err := <-done:
		t.Fatalf("it ended while its disk was full: %v", err)
	default:
	}
	// A disk of 64 KiB has no room for it: make the disk larger than the traffic.
	if out, err := exec.Command("nsenter", "-U", "-m", "--preserve-credentials", "-t", fmt.Sprint(p.Process.Pid), "mount", "-o", "remount,size=64m", dir).CombinedOutput(); err != nil {
		t.Skipf("nsenter: %v %s", err, out)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not go on")
	}
	f, err := os.Open(filepath.Join(from(), "out")) // the disk ends with weir
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK || strings.Contains(p.said(), "lacks") {
		t.Errorf("code %d", code)
	}
	events, err := layer.ReadRecording(f, 1)
	if err != nil {
		t.Fatal(err)
	}
	var got [2]int
	for _, e := range events {
		switch e.What { //nolint:exhaustive // the bytes
		case layer.Received:
			got[0] += len(e.Data)
		case layer.Sent:
			got[1] += len(e.Data)
		}
	}
	if want := len(request); got != [2]int{want, want} {
		t.Errorf("%v bytes are recorded of %d", got, want)
	}
}

// TestRecordingFile: a file that belongs to no one else is emptied and readable
// only by its owner; anything else is refused, and left as it is.
func TestRecordingFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"open", "target", "twice"} {
		if err := os.WriteFile(at(name), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(at("open"), 0o666), os.Symlink(at("target"), at("link")), os.Symlink(at("none"), at("dangling")), os.Link(at("twice"), at("other"))); err != nil { //nolint:gosec // that is what is tried
		t.Fatal(err)
	}
	back := server(t, answer(strings.ToUpper))
	p := start(t, "0+record:"+at("open"), back)
	if err := roundTrip(p.listening(), "hello"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(at("open")); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for _, c := range []struct{ name, problem string }{
		{"link", "link is a symbolic link to " + at("target")},
		{"dangling", "dangling is a symbolic link to " + at("none")},
		{"twice", "twice is a file that has another name too"},
		{"open", "open is a file that another recording is being written to"},
	} {
		q := start(t, "0+record:"+at(c.name), back)
		if code := q.end(); code != exitFailure || !strings.Contains(q.said(), "layer record: "+dir) || !strings.Contains(q.said(), c.problem) || strings.Contains(q.said(), "ready") {
			t.Errorf("%s: code %d:\n%s", c.name, code, q.said())
		}
	}
	for _, name := range []string{"target", "twice"} {
		if b, err := os.ReadFile(at(name)); err != nil || string(b) != "precious" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := os.Lstat(at("none")); err == nil {
		t.Error("a file was made where a link led")
	}
	q := start(t, "0+record:"+at("same"), back+"+record:"+at("same"))
	if code := q.end(); code != exitFailure || !strings.Contains(q.said(), "another recording is being written to") {
		t.Errorf("one file for both sides: code %d:\n%s", code, q.said())
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	if b, err := os.ReadFile(at("open")); err != nil || !strings.Contains(string(b), `"hello"`) || strings.Contains(string(b), "precious") {
		t.Errorf("%q, %v", b, err)
	}
}
