//go:build unix

package main

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFailover: whatever the first target makes a connection wait for, the next
// target serves it.
func TestFailover(t *testing.T) {
	serves := echoing(t)
	silent := server(t, holds(t))
	for name, first := range map[string]string{
		"retry":          freePort(t) + ",retry=1h",
		"silent TLS":     silent + "+tls,insecure,timeout=1h",
		"silent proxy":   silent + "+socks5:db:5432,timeout=1h",
		"TLS with retry": server(t, func(c *net.TCPConn) { _ = c.SetLinger(0) }) + ",retry=1h+tls,insecure",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "tcp-listen:127.0.0.1:0", first, serves, "--pick", "first")
			at := p.listening()
			alive(t, dial(t, at))
			alive(t, dial(t, at))
			p.line("cannot connect to ", 1)
			if n := strings.Count(p.said(), "cannot connect"); n != 1 {
				t.Errorf("it was said %d times", n)
			}
			if l := p.line("open #1 ", 1); !strings.Contains(l, serves) {
				t.Errorf("%q does not say who serves", l)
			}
		})
		t.Run(name+"/check", func(t *testing.T) {
			t.Parallel()
			p := start(t, "tcp-listen:127.0.0.1:0", first, serves, "--check", "50ms")
			at := p.listening()
			p.line("cannot connect to ", 1) // by a check: there has been no client yet
			for range 4 {
				alive(t, dial(t, at))
			}
		})
	}
}

// TestSlowTarget: a target that is slow but the only one there is used.
func TestSlowTarget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead := freePort(t)
	p := start(t, "tcp-listen:127.0.0.1:0", path+",retry=1h", dead, "--pick", "first")
	var c net.Conn = dial(t, p.listening())
	p.line("cannot connect to "+dead, 1)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
		}
	}()
	alive(t, c)
	p.line("back "+path, 1)
	// With none left the client is told.
	p = start(t, "tcp-listen:127.0.0.1:0", dead, freePort(t))
	c, err = net.DialTimeout("tcp", p.listening(), patience)
	if err == nil { // otherwise the reset came before the dial was done
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %v, want a reset", err)
	}
	p.line("cannot connect", 2)
}

// TestToItself: a relay that leads to itself is refused: at the start if the
// endpoints show it, otherwise when it connects.
func TestToItself(t *testing.T) {
	for _, args := range []string{
		"8080 localhost:8080", ":8080 127.0.0.1:8080", "localhost:8080 8080", "8080 example.com:80 localhost:8080",
		"unix-listen:/tmp/a unix:/tmp/a", "udp-listen:5353 udp:localhost:5353",
	} {
		if r := call(t, strings.Fields(args)...); r.code != exitUsage || !strings.Contains(r.err, "leads to itself") {
			t.Errorf("weir %s: %+v", args, r)
		}
	}
	dir := t.TempDir()
	path, link := filepath.Join(dir, "s"), filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	for _, args := range [][]string{
		{"unix-listen:" + path, link},
		{"tcp-listen:" + port, "tcp:" + strings.Replace(port, "127.0.0.1", "0.0.0.0", 1)},
	} {
		p := start(t, args...)
		p.line("ready", 1)
		network, addr := "unix", path
		if args[1] != link {
			network, addr = "tcp", port
		}
		// Its end may come before connect has returned.
		if c, err := net.DialTimeout(network, addr, patience); err == nil {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("something came back")
			}
			_ = c.Close() // the other side has
		}
		p.line("leads to itself", 1)
		if strings.Contains(p.said(), "open #1") {
			t.Errorf("it connected to itself:\n%s", p.said())
		}
	}
}
