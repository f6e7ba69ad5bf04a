package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProxies: the worked examples 6, 7 and 8 as processes: a proxy that goes
// where its client asks, one that asks the next proxy for the same, and standard
// input through both. The reply after the input's end arrives whole.
func TestProxies(t *testing.T) {
	reply := strings.Repeat("all of the reply\n", 10_000)
	addr := server(t, answer(func(string) string { return reply }))
	_, port, _ := strings.Cut(addr, ":")
	for _, last := range []string{"socks5", "connect", "socks4a"} {
		for _, first := range []string{"socks5", "connect", "socks4a"} {
			t.Run(first+" to "+last, func(t *testing.T) {
				far := start(t, "tcp-listen:127.0.0.1:0+"+last, "dial")
				near := start(t, "tcp-listen:127.0.0.1:0+"+first, far.listening()+"+"+last)
				p := prepare(t, "weir", "-", near.listening()+"+"+first+":localhost:"+port)
				p.Stdin = strings.NewReader("request")
				var out bytes.Buffer
				p.Stdout = &out
				p.begin()
				if code := p.end(); code != exitOK || out.String() != reply {
					t.Errorf("code %d, %d of %d bytes", code, out.Len(), len(reply))
				}
				far.line("open #1", 1)
				near.line(" to localhost:"+port, 1)
			})
		}
	}
}

// TestProxyPolicy: a proxy that anyone could use is refused with exit code 3,
// and rules that let nothing through refuse the client.
func TestProxyPolicy(t *testing.T) {
	for _, args := range [][]string{
		{":0+socks5", "dial"}, {"tcp-listen:0.0.0.0:0+connect", "dial"}, {"tcp-listen:[::]:0+socks4", "dial"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			p := prepare(t, "weir", append([]string{"explain"}, args...)...)
			p.begin()
			if code := p.end(); code != exitPolicy {
				t.Errorf("code %d", code)
			}
		})
	}
	addr := server(t, answer(func(string) string { t.Error("it was reached"); return "" }))
	far := start(t, "tcp-listen:127.0.0.1:0+socks5", "dial", "--deny", "127.0.0.0/8,::1")
	p := prepare(t, "weir", "-", far.listening()+"+socks5:"+addr)
	p.Stdin = strings.NewReader("x")
	p.begin()
	if code := p.end(); code != exitFailure {
		t.Errorf("code %d", code)
	}
	p.line("not allowed by the rules", 1)
	far.line("not allowed by the rules", 1)
}

// TestProxyLines: text that a peer chooses never makes a line of its own, nor
// moves a terminal's cursor (docs/promises.md, Logs).
func TestProxyLines(t *testing.T) {
	for _, first := range []string{
		"\x05\x01\x00\x05\x01\x00\x03\x10a\r\nready \x1b[2J\x00b.\x00\x50", "\x04\x01\x00\x50\x00\x00\x00\x01u\r\n\x1b[2J\x00a\nready\x00",
		"CONNECT a\x1b[2J:1 HTTP/1.1\r\n\r\n", "GET /\x1b[2J HTTP/1.1\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n" + strings.Repeat("A", 64<<10),
	} {
		for _, proxy := range []string{"socks5", "socks4a", "connect"} {
			t.Run(fmt.Sprintf("%s %.12q", proxy, first), func(t *testing.T) {
				far := start(t, "tcp-listen:127.0.0.1:0+"+proxy, "dial")
				c := dial(t, far.listening())
				if err := errors.Join(write(c, first), c.CloseWrite()); err != nil {
					t.Log(err) // it may have been refused already
				}
				far.line("no connection with", 1)
				said := far.said()
				if strings.Contains("\n"+said, "\nready") || strings.ContainsAny(said, "\x1b\x00\r") {
					t.Errorf("it said %q", said)
				}
			})
		}
	}
}

// TestEmptySecret: a secret must not be empty: the proxy that it would protect does
// not listen, and the failure names the option, where it was read, and what to do.
func TestEmptySecret(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("a:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{"socks5,user=a,password=env:EMPTY", "password=env:EMPTY: it is empty"},
		{"connect,user=a,password=env:EMPTY", "password=env:EMPTY: it is empty"},
		{"socks5,users=file:" + users, "line 1: its password is empty"},
	} {
		p := prepare(t, "weir", "tcp-listen:127.0.0.1:0+"+c[0], "dial")
		p.Env = append(p.Env, "EMPTY=")
		p.begin()
		if code := p.end(); code != exitFailure || !strings.Contains(p.said(), c[1]) || strings.Contains(p.said(), "ready") {
			t.Errorf("%s: code %d, it said %q", c[0], code, p.said())
		}
		if lines := strings.Split(p.said(), "\n"); len(lines) != 2 {
			t.Errorf("no next step in %q", lines)
		}
	}
}

// TestProxyInProxy: two proxy servers on one listener are two proxies, one inside
// the other: a client that goes through the first to anywhere speaks to the
// second.
func TestProxyInProxy(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	far := start(t, "tcp-listen:127.0.0.1:0+socks5+connect", "dial")
	p := prepare(t, "weir", "-", far.listening()+"+socks5:inner.test:1+connect:"+addr)
	p.Stdin = strings.NewReader("through two")
	var out bytes.Buffer
	p.Stdout = &out
	p.begin()
	if code := p.end(); code != exitOK || out.String() != "THROUGH TWO" {
		t.Errorf("code %d, %q", code, out.String())
	}
}
