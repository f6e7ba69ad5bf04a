package main

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
)

// closed is an address on which nothing listens: tcpmux has disappeared
// everywhere, and the system hands out no port so low.
const closed = "127.0.0.1:1"

// TestProxyRefusals: a proxy's refusal is reported as such: the target that it
// was asked for, the proxy, and a next step that is about the proxy and not about
// routes from here (docs/promises.md: every failure names the side, the layer,
// the address and the next step).
func TestProxyRefusals(t *testing.T) {
	none := closed
	proxy := func(layer string, args ...string) string {
		p := prepare(t, "weir", append([]string{"tcp-listen:127.0.0.1:0+" + layer, "dial"}, args...)...)
		p.Env = append(p.Env, "P=right")
		p.begin()
		return p.listening()
	}
	socks := proxy("socks5,user=us,password=env:P", "--deny", "127.0.0.9")
	connect := proxy("connect,user=us,password=env:P", "--deny", "127.0.0.9")
	answers := func(code string) string { // a SOCKS5 proxy that gives everyone this answer
		return server(t, func(c *net.TCPConn) {
			buf := make([]byte, 512)
			_, methods := c.Read(buf)
			chosen := write(c, "\x05\x00")
			_, request := c.Read(buf)
			if err := errors.Join(methods, chosen, request, write(c, "\x05"+code)); err != nil {
				t.Error(err)
			}
		})
	}
	const right, wrong = ",user=us,password=env:P", ",user=us,password=env:W"
	for _, c := range []struct{ proxy, layer, dest, auth, next string }{
		{socks, "socks5", none, right, "The proxy could not reach " + none + ": nothing listens there. To wait for it: add ,retry=30s to " + socks},
		{answers("\x03"), "socks5", "name.test:1", "", "The proxy could not reach name.test:1: it has no way to that network"},
		{answers("\x04"), "socks5", "name.test:1", "", "The proxy could not reach name.test:1: it found no such name"},
		{answers("\x06"), "socks5", "name.test:1", "", "The proxy could not reach name.test:1: it got no answer there"},
		{answers("\x07"), "socks5", "name.test:1", "", "or one that does not connect"},
		{answers("\x01"), "socks5", "name.test:1", "", "The proxy could not reach name.test:1, and says no more"},
		{socks, "socks5", none, wrong, "check user=us and what env:W holds"},
		{socks, "socks5", none, "", "add ,user=NAME,password=env:VAR to +socks5"},
		{socks, "socks5", "127.0.0.9:1", right, "The proxy does not go to 127.0.0.9:1 for us"},
		{connect, "connect", none, right, "The proxy could not reach " + none + ", and says no more"},
		{connect, "connect", none, wrong, "check user=us and what env:W holds"},
		{connect, "connect", none, "", "add ,user=NAME,password=env:VAR to +connect"},
		{connect, "connect", "127.0.0.9:1", right, "The proxy does not go to 127.0.0.9:1 for us"},
	} {
		end := c.proxy + "+" + c.layer + ":" + c.dest + c.auth
		p := prepare(t, "weir", "-", end)
		p.Env = append(p.Env, "P=right", "W=wrong")
		p.begin()
		code := p.end()
		refused := ": the proxy refused: "
		if c.auth != "" {
			refused = `: the proxy refused user "us": `
		}
		lines := strings.Split(p.said(), "\n")
		if code != exitFailure || len(lines) != 3 ||
			!strings.HasPrefix(lines[0], "weir: cannot connect to "+c.dest+" through "+c.proxy+"+"+c.layer+refused) ||
			lines[1] != "  asked the proxy at "+c.proxy || !strings.Contains(lines[2], c.next) {
			t.Errorf("%s: code %d, it said\n%s", end, code, p.said())
		}
	}
}

// TestProxyChainRefusal: with two proxies the one that refused is named, with
// what it was asked for.
func TestProxyChainRefusal(t *testing.T) {
	none := closed
	first, second := start(t, "tcp-listen:127.0.0.1:0+socks5", "dial"), start(t, "tcp-listen:127.0.0.1:0+socks5", "dial")
	for _, c := range []struct{ end, want string }{
		{
			first.listening() + "+socks5:" + second.listening() + "+socks5:" + none,
			"cannot connect to " + none + " through " + first.listening() + "+socks5+socks5: the proxy refused",
		},
		{
			first.listening() + "+socks5:" + none + "+socks5:" + second.listening(),
			"cannot connect to " + none + " through " + first.listening() + "+socks5: the proxy refused",
		},
	} {
		p := start(t, "-", c.end)
		if code := p.end(); code != exitFailure || !strings.Contains(p.said(), c.want) {
			t.Errorf("%s: code %d, it said\n%s", c.end, code, p.said())
		}
	}
}

// TestProxySaysWhichRule: when a proxy refuses an address it names the rule, if
// one was given, and how to allow the address; following that works.
func TestProxySaysWhichRule(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	_, port, _ := strings.Cut(addr, ":")
	for _, c := range []struct {
		dest, want, next string
		flags            []string
	}{
		{"169.254.1.1:1", "not allowed by default (169.254.1.1 is link-local)", "add --allow 169.254.1.1", nil},
		{"0.0.0.0:" + port, "not allowed by default (0.0.0.0 is the unspecified address)", "add --allow 0.0.0.0", nil},
		{"224.0.0.1:1", "not allowed by default (224.0.0.1 is multicast)", "add --allow 224.0.0.1", nil},
		{addr, "127.0.0.1 is in 127.0.0.0/8, which is denied", "--deny refuses it", []string{"--deny", "127.0.0.0/8"}},
		{addr, "127.0.0.1 is in no network that is allowed", "--allow refuses it", []string{"--allow", "10.0.0.0/8"}},
		{"0.0.0.0:" + port, "", "", []string{"--allow", "0.0.0.0,0.0.0.0/0,::/0"}},
	} {
		far := start(t, append([]string{"tcp-listen:127.0.0.1:0+socks5", "dial"}, c.flags...)...)
		p := prepare(t, "weir", "-", far.listening()+"+socks5:"+c.dest)
		p.Stdin = strings.NewReader("x")
		var out bytes.Buffer
		p.Stdout = &out
		p.begin()
		code := p.end()
		if c.want == "" {
			if code != exitOK || out.String() != "X" {
				t.Errorf("%s %v: code %d, %q", c.dest, c.flags, code, out.String())
			}
			continue
		}
		far.line(c.want, 1)
		far.line(c.next, 1)
		if code != exitFailure {
			t.Errorf("%s %v: code %d", c.dest, c.flags, code)
		}
	}
}
