package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// crowded starts weir with a limit of 256 descriptors.
func crowded(t *testing.T, args ...string) *process {
	t.Helper()
	p := limited(t, 256, args...)
	p.begin()
	return p
}

// limited prepares a weir that may have files descriptors at most.
func limited(t *testing.T, files int, args ...string) *process {
	t.Helper()
	p := prepare(t, "weir", args...)
	p.Path, p.Args = "/bin/sh", append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files), p.Path}, args...)
	return p
}

// dialFrom connects from one of the loopback addresses; nil if it is reset at
// once.
func dialFrom(t *testing.T, from, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", addr)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// served reports whether an echo comes back.
func served(c net.Conn) bool {
	if c == nil {
		return false
	}
	if _, err := io.WriteString(c, "x"); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err == nil
}

// TestCrowd: one address that opens more connections than there are descriptors
// keeps no other address out, and one warning says so; per-address=none lets
// one address have every place, connections= sets how many places there are
// (S3).
func TestCrowd(t *testing.T) {
	echo := server(t, func(c *net.TCPConn) {
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	})
	for _, c := range []struct {
		options string
		greedy  int // how many of 300 from one address are served
		other   bool
		says    string
	}{
		{"", 89, true, "127.0.0.1 has 89, and the last 5 places are kept for others"},
		{",per-address=10", 10, true, "127.0.0.1 has 10, which is the limit for one address"},
		{",connections=20,per-address=none", 20, false, "there are 20, which is the limit"},
	} {
		t.Run("with"+c.options, func(t *testing.T) {
			began := time.Now()
			p := crowded(t, "--loops", "2", "tcp-listen:127.0.0.1:0"+c.options, echo) // each loop keeps some
			addr := p.listening()
			var all []net.Conn
			for range 300 {
				if c := dialFrom(t, "127.0.0.1", addr); c != nil {
					all = append(all, c)
				}
			}
			n := 0
			for _, c := range all {
				if served(c) {
					n++
				}
			}
			if n != c.greedy {
				t.Errorf("%d of one address were served, want %d", n, c.greedy)
			}
			p.line(c.says, 1)
			other := dialFrom(t, "127.0.0.2", addr)
			if got := served(other); got != c.other {
				t.Errorf("another address was served: %v", got)
			}
			if other != nil {
				all = append(all, other)
			}
			for _, c := range all {
				_ = c.Close() // weir has to notice the rest
			}
			p.signal(os.Interrupt)
			if code := p.end(); code != exitOK {
				t.Errorf("code %d", code)
			}
			// The first at once, and then the count of 10 s, or of the time until the end.
			said, sum := 0, 0
			for line := range strings.Lines(p.said()) {
				if _, rest, ok := strings.Cut(line, " refused "); ok {
					n := 0
					if _, err := fmt.Sscanf(rest, "%d connection", &n); err != nil {
						t.Errorf("%v: %s", err, line)
					}
					said, sum = said+1, sum+n
				}
			}
			if most := 2 + int(time.Since(began)/(10*time.Second)); said > most {
				t.Errorf("it said so %d times, want at most %d", said, most)
			}
			refused := 300 - c.greedy
			if !c.other {
				refused++
			}
			if sum != refused {
				t.Errorf("it says that it refused %d, want %d", sum, refused)
			}
		})
	}
}

// TestCrowdServed: of 300 clients that come at once to a weir with 200 descriptors,
// stay for a moment and leave, all are served: they wait for a place, and none is
// reset, on any backend (C8).
func TestCrowdServed(t *testing.T) {
	echo := server(t, func(c *net.TCPConn) {
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	})
	for _, options := range []string{"", ",per-address=none", ",per-address=none,connections=none"} {
		for _, backend := range weir.Backends() {
			t.Run(backend+options, func(t *testing.T) {
				if asked := os.Getenv("WEIR_BACKEND"); asked != "" && asked != backend {
					t.Skip("WEIR_BACKEND asks for ", asked)
				}
				p := limited(t, 200, "tcp-listen:127.0.0.1:0"+options, echo)
				p.Env = append(p.Env, "WEIR_BACKEND="+backend)
				p.begin()
				addr := p.listening()
				p.signal(syscall.SIGSTOP) // so that all come at once
				var all []net.Conn
				for range 300 {
					c := dialFrom(t, "127.0.0.1", addr)
					if c == nil {
						t.Fatal("reset at once")
					}
					all = append(all, c)
				}
				p.signal(syscall.SIGCONT)
				if options != ",per-address=none,connections=none" {
					p.line(" lets wait ", 1)
				}
				errs := make(chan error, len(all))
				for _, c := range all {
					go func() {
						defer c.Close()
						errs <- ask(c)
					}()
				}
				for range cap(errs) {
					if err := <-errs; err != nil {
						t.Error(err)
					}
				}
				p.signal(os.Interrupt)
				if code := p.end(); code != exitOK {
					t.Errorf("code %d", code)
				}
				if said := p.said(); strings.Contains(said, " refused ") {
					t.Errorf("it refused some:\n%s", said)
				}
			})
		}
	}
}

// ask has something echoed twice, so that it stays for more than a moment.
func ask(c net.Conn) error {
	for range 2 {
		if _, err := io.WriteString(c, "x"); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return err
		}
	}
	return nil
}
