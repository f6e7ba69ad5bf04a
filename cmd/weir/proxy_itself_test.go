package main

import (
	"net/netip"
	"strings"
	"testing"
)

// socksTo are a SOCKS5 client's greeting and its request for an IPv4 address.
func socksTo(a netip.AddrPort) string {
	ip := a.Addr().As4()
	return "\x05\x01\x00\x05\x01\x00\x01" + string(ip[:]) + string([]byte{byte(a.Port() >> 8), byte(a.Port())})
}

// TestProxyItself: a proxy that is asked for itself refuses, whatever rule allows
// it and however it is spelled: requests one inside the other, 13 bytes each, made
// one connection take every descriptor (S4).
func TestProxyItself(t *testing.T) {
	for _, flags := range [][]string{nil, {"--allow", "127.0.0.0/8,0.0.0.0/8,0.0.0.0/0"}} {
		far := start(t, append([]string{"tcp-listen:127.0.0.1:0+socks5", "dial"}, flags...)...)
		own := netip.MustParseAddrPort(far.listening())
		for i, to := range []netip.AddrPort{own, netip.AddrPortFrom(netip.IPv4Unspecified(), own.Port())} {
			if i == 1 && flags == nil {
				continue // refused for what it is in any case
			}
			c := dial(t, far.listening())
			if err := write(c, strings.Repeat(socksTo(to), 100)); err != nil {
				t.Log(err) // it may have been refused already
			}
			far.line("never allowed (", i+1)
		}
		if said := far.said(); strings.Contains(said, "open #") {
			t.Errorf("%v: it said\n%s", flags, said)
		}
	}
}

// TestProxyPrivate: a proxy that others can reach leads them to private addresses
// only if these are named; one on loopback leads there, since its clients can go
// there anyway.
func TestProxyPrivate(t *testing.T) {
	addr := server(t, answer(strings.ToUpper))
	for _, c := range []struct {
		listen string
		flags  []string
		want   string
	}{
		{"tcp-listen:127.0.0.1:0", nil, ""},
		{"tcp-listen:0.0.0.0:0", nil, "not allowed by default (127.0.0.1 is this machine itself)"},
		{"tcp-listen:0.0.0.0:0", []string{"--allow", "0.0.0.0/0,::/0"}, "not allowed by default (127.0.0.1 is this machine itself)"},
		{"tcp-listen:0.0.0.0:0", []string{"--allow", "127.0.0.1,0.0.0.0/0,::/0"}, ""},
		{"unix-listen:" + t.TempDir() + "/s", nil, ""},
	} {
		p := prepare(t, "weir", append([]string{c.listen + "+socks5,user=us,password=env:P", "dial"}, c.flags...)...)
		p.Env = append(p.Env, "P=right")
		p.begin()
		_, at, _ := strings.Cut(c.listen, ":")
		if !strings.HasPrefix(at, "/") {
			_, port, _ := strings.Cut(p.listening(), ":")
			at = "127.0.0.1:" + port
		} else {
			p.line("ready", 1)
		}
		q := prepare(t, "weir", "-", at+"+socks5:"+addr+",user=us,password=env:P")
		q.Env = append(q.Env, "P=right")
		q.Stdin = strings.NewReader("x")
		var out strings.Builder
		q.Stdout = &out
		q.begin()
		code := q.end()
		switch {
		case c.want == "" && (code != exitOK || out.String() != "X"):
			t.Errorf("%s %v: code %d, %q, it said\n%s", c.listen, c.flags, code, out.String(), p.said())
		case c.want != "":
			p.line(c.want, 1)
			p.line("add --allow 127.0.0.1 if you mean to allow it", 1)
		}
	}
}
