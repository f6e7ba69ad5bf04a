package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStuckReaders: while no one reads weir's output, on standard error or in the
// named pipe of a log or a recording, every connection is served as before.
func TestStuckReaders(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it has no named pipes in the file system")
	}
	for _, c := range []struct{ name, layer string }{
		{"standard error", ""},
		{"log on standard error", "+log"},
		{"log", "+log,to=FIFO"},
		{"recording", "+record:FIFO"},
	} {
		for _, form := range []string{"text", "json"} {
			t.Run(c.name+"/"+form, func(t *testing.T) {
				fifo := filepath.Join(t.TempDir(), "fifo")
				if strings.Contains(c.layer, "FIFO") {
					if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
						t.Skipf("mkfifo: %v %s", err, out)
					}
					f, err := os.OpenFile(fifo, os.O_RDWR, 0) // a reader that never reads
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
				}
				back := server(t, answer(strings.ToUpper))
				p := prepare(t, "weir", "--log", form, "0"+strings.ReplaceAll(c.layer, "FIFO", fifo), back)
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				p.Stderr = w
				if err := p.Start(); err != nil {
					t.Fatal(err)
				}
				_ = w.Close()
				ended := make(chan error, 1)
				go func() { ended <- p.Wait() }()
				defer func() {
					_ = p.Process.Kill() // it may have ended
					<-ended
				}()
				// Read its lines up to the one that says where it listens, and no more.
				lines, at := bufio.NewReaderSize(r, 16), ""
				for at == "" {
					line, err := lines.ReadString('\n')
					if err != nil {
						t.Fatalf("%q, %v", line, err)
					}
					at = regexp.MustCompile(`127\.0\.0\.1:[1-9][0-9]*`).FindString(line)
				}
				request := strings.Repeat("some bytes that a log shows ", 30)
				for i := range 400 { // its lines are more than a pipe holds
					conn := dial(t, at)
					if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
						t.Fatal(err)
					}
					if err := write(conn, request); err != nil {
						t.Fatalf("connection %d: %v", i, err)
					}
					if err := conn.CloseWrite(); err != nil {
						t.Fatalf("connection %d: %v", i, err)
					}
					got, err := io.ReadAll(conn)
					if err != nil || string(got) != strings.ToUpper(request) {
						t.Fatalf("connection %d: %d bytes, %v", i, len(got), err)
					}
					_ = conn.Close()
				}
				// Its end does not wait for them either.
				if err := p.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-ended:
					ended <- err
				case <-time.After(patience):
					t.Error("it does not end while no one reads")
				}
			})
		}
	}
}
