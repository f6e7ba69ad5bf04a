package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// onBackends starts a test of the command on each backend of this machine, or
// on the one that WEIR_BACKEND asks for.
func onBackends(t *testing.T, f func(t *testing.T, relay func(b string) *process)) {
	t.Helper()
	for _, backend := range weir.Backends() {
		t.Run(backend, func(t *testing.T) {
			if asked := os.Getenv("WEIR_BACKEND"); asked != "" && asked != backend {
				t.Skip("WEIR_BACKEND asks for ", asked)
			}
			f(t, func(b string) *process {
				p := prepare(t, "weir", "tcp-listen:127.0.0.1:0", b)
				p.Env = append(p.Env, "WEIR_BACKEND="+backend)
				p.begin()
				return p
			})
		})
	}
}

// slowly reads to the end, a piece each millisecond, after doing nothing for a
// while.
func slowly(c *net.TCPConn) ([]byte, error) {
	<-time.After(200 * time.Millisecond)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var got []byte
	b := make([]byte, 32<<10)
	for {
		<-tick.C
		n, err := c.Read(b)
		got = append(got, b[:n]...)
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
}

// TestPatience covers what relays lose most often, on every backend: the
// backlog of a side that closed, for a slow reader (behaviour 24); what came
// with the end of the stream, for a busy reader (26); and a reply that comes
// long after the request's end (27).
func TestPatience(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	check := func(t *testing.T, got []byte, err error) {
		t.Helper()
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
		}
	}
	onBackends(t, func(t *testing.T, relay func(string) *process) {
		t.Run("24 4 MiB and a close to a slow reader", func(t *testing.T) {
			p := relay(server(t, func(c *net.TCPConn) { _, _ = c.Write(data) })) // closed at once
			c := dial(t, p.listening())
			got, err := slowly(c)
			check(t, got, err)
			if err := c.Close(); err != nil { // until then it may still write
				t.Fatal(err)
			}
			p.line("4.2 MB back", 1)
		})
		t.Run("26 4 MiB and the end to a busy server", func(t *testing.T) {
			type result struct {
				got []byte
				err error
			}
			results := make(chan result, 1)
			p := relay(server(t, func(c *net.TCPConn) {
				got, err := slowly(c)
				results <- result{got, err}
			}))
			c := dial(t, p.listening())
			if _, err := c.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			r := <-results
			check(t, r.got, r.err)
			p.line("4.2 MB out", 1)
		})
		t.Run("27 a reply 200 ms after the request's end", func(t *testing.T) {
			p := relay(server(t, func(c *net.TCPConn) {
				b, err := io.ReadAll(c)
				if err != nil || string(b) != "request" {
					t.Errorf("the request was %q, %v", b, err)
				}
				<-time.After(200 * time.Millisecond)
				_, _ = c.Write(data) // what arrives is checked
			}))
			c := dial(t, p.listening())
			if err := errors.Join(write(c, "request"), c.CloseWrite()); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			check(t, got, err)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			p.line("7 B out, 4.2 MB back", 1)
		})
	})
}
