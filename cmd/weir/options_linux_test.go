package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// TestTimeouts: each stage has a bound of its own: a silent address, a proxy and a
// TLS server that accept a connection and say nothing (R44). If the short bound
// does not work, the others exceed a test's patience.
func TestTimeouts(t *testing.T) {
	dead := fullListener(t)
	mute := server(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	for _, c := range []struct{ to, says string }{
		{dead + ",connect-timeout=100ms,timeout=1h", dead + " "},
		{dead + ",connect-timeout=1h,timeout=100ms", "timed out"},
		{mute + ",timeout=100ms+tls,insecure,timeout=1h", "timed out"},
		{mute + ",timeout=100ms+socks5:db.test:5432,timeout=1h", "timed out"},
		{mute + ",timeout=1h+tls,insecure,timeout=100ms", "timed out"},
		{mute + ",timeout=1h+socks5:db.test:5432,timeout=100ms", "timed out"},
	} {
		p := prepare(t, "weir", "-", c.to)
		p.begin()
		if code := p.end(); code != exitFailure || !strings.Contains(p.said(), c.says) {
			t.Errorf("%s: code %d, says %q", c.to, code, p.said())
		}
	}
}

// TestDatagramInterface: datagrams leave by the interface that was asked for; one that is
// not there is told, and ends nothing.
func TestDatagramInterface(t *testing.T) {
	if os.Getenv("WEIR_BACKEND") == "portable" {
		t.Skip("package net cannot bind to a device")
	}
	server, _ := echoUDP(t, "re:")
	p := start(t, "udp-listen:127.0.0.1:0", "udp:"+server+",interface=lo")
	if got, err := askUDP(t, dialUDP(t, p.listening()), patience); got != "re:x" {
		t.Errorf("%q, %v", got, err)
	}
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	p = start(t, "udp-listen:127.0.0.1:0", "udp:"+server+",interface=nosuch0")
	if err := write(dialUDP(t, p.listening()), "x"); err != nil {
		t.Fatal(err)
	}
	p.line("no such device", 1)
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	socks := start(t, "tcp-listen:127.0.0.1:0+socks5,udp", "dial")
	p = start(t, "udp-listen:127.0.0.1:0", "udp:"+socks.listening()+",interface=nosuch0+socks5:"+server)
	if err := write(dialUDP(t, p.listening()), "x"); err != nil {
		t.Fatal(err)
	}
	p.line("no such device", 1)
	p.signal(os.Interrupt)
	p.end()
	socks.signal(os.Interrupt)
	socks.end()
}

// TestWhereFrom: the local address of a target is the one that was asked for,
// and one of another family is an error that names it (R47).
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
