package main

import (
	"net"
	"strings"
	"testing"
)

// TestProxyInAnonymous: a PROXY header whose family has no IP addresses gives
// no one a way past limit,per-address, nor out of the log: the socket's own
// address counts. A header for UDP has addresses, which count.
func TestProxyInAnonymous(t *testing.T) {
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	unix := v2 + "\x21\x31\x00\xd8" + strings.Repeat("\x00", 216)
	udp := v2 + "\x21\x12\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb"
	addr := server(t, answer(strings.ToUpper))
	p := start(t, "tcp-listen:127.0.0.1:0+proxy-in+limit,per-address=1", addr)
	open := func(header string) *net.TCPConn {
		c := dial(t, p.listening())
		if err := write(c, header); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := open(unix)
	p.line("open #1 "+first.LocalAddr().String()+" -> ", 1)
	open(unix)
	p.line("127.0.0.1/32 has 1 connections", 1)
	open(udp)
	p.line("open #2 192.0.2.1:1234 -> ", 1)
	open(udp)
	p.line("192.0.2.1/32 has 1 connections", 1)
}

// TestProxyInUntrusted: a peer that may not send a PROXY header is reported as
// such, with the option that would allow it.
func TestProxyInUntrusted(t *testing.T) {
	p := start(t, "tcp-listen:127.0.0.1:0+proxy-in,from=192.0.2.1", "127.0.0.1:1")
	// Its reset may come before connect has returned.
	if c, err := net.Dial("tcp", p.listening()); err == nil {
		defer c.Close()
	}
	p.line("127.0.0.1 is in no network that is allowed", 1)
	p.line("add ,from=127.0.0.1 to +proxy-in", 1)
}
