package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// silent is an address of loopback whose connects are neither taken nor refused:
// its queue is full.
func silent(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for {
		c, err := net.DialTimeout("tcp", at, 200*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

// TestTimeouts: each stage has its own bound, and all of them have one: an address
// that is silent, a proxy and a TLS server that take a connection and say nothing
// (R44).
func TestTimeouts(t *testing.T) {
	dead := silent(t)
	mute := server(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	for _, c := range []struct{ to, says string }{
		{dead + ",connect-timeout=100ms", dead + " "},
		{dead + ",timeout=100ms", "timed out"},
		{mute + ",timeout=100ms+tls,insecure", "timed out"},
		{mute + ",timeout=100ms+socks5:db.test:5432", "timed out"},
		{mute + "+tls,insecure,timeout=100ms", "timed out"},
		{mute + "+socks5:db.test:5432,timeout=100ms", "timed out"},
	} {
		start := time.Now()
		p := prepare(t, "weir", "-", c.to)
		p.begin()
		if code := p.end(); code != exitFailure || !strings.Contains(p.said(), c.says) {
			t.Errorf("%s: code %d, says %q", c.to, code, p.said())
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %v", c.to, took)
		}
	}
}

// TestWhereFrom: the local address of a target is what was asked for, and one of
// another family is an error that names it (R47).
func TestWhereFrom(t *testing.T) {
	at := server(t, func(c *net.TCPConn) { _ = write(c, c.RemoteAddr().(*net.TCPAddr).IP.String()) })
	_, port, _ := net.SplitHostPort(at)
	for _, to := range []string{at + ",bind=127.0.0.9", "localhost:" + port + ",family=4,bind=127.0.0.9"} {
		p := prepare(t, "weir", "-", to)
		var out bytes.Buffer
		p.Stdout = &out
		p.begin()
		if code := p.end(); code != exitOK || out.String() != "127.0.0.9" {
			t.Errorf("%s: code %d, from %q, says %s", to, code, out.String(), p.said())
		}
	}
	p := prepare(t, "weir", "-", at+",bind=192.0.2.1")
	p.begin()
	if code := p.end(); code != exitFailure || !strings.Contains(p.said(), "192.0.2.1") {
		t.Errorf("code %d, says %q", code, p.said())
	}
}
