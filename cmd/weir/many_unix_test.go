//go:build unix

package main

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestManyAtOnce: 9,000 connections at once, with the usual limit of 20,000
// descriptors per process: three processes share the ends.
func TestManyAtOnce(t *testing.T) {
	n := "9000"
	if testing.Short() {
		n = "900"
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < 18100 {
		t.Skipf("this takes 18,100 descriptors in one process, the limit is %d (%v)", limit.Max, err)
	}
	addr := server(t, func(c *net.TCPConn) {
		// Plain reads and writes: io.Copy would splice, and keep a pipe for each.
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	})
	p := start(t, "tcp-listen:127.0.0.1:0", addr)
	client := prepare(t, "flood", p.listening(), n)
	stdin, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	client.Stdout = w
	began := time.Now()
	client.begin()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("all open\n"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "all open\n" {
		t.Fatalf("%q, %v: %s", line, err, client.said())
	}
	t.Logf("%s connections open and served after %v", n, time.Since(began))
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if code := client.end(); code != 0 {
		t.Errorf("the client: code %d: %s", code, client.said())
	}
	_ = out.Close() // nothing more to read
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	p.line("done "+n+" connections", 1)
}
