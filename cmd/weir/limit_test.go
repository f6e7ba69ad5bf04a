package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestLimitsSay: a line says which limit of which layer ended a connection, after
// how long, and on which side; for a handshake that took too long it says whose
// it was.
func TestLimitsSay(t *testing.T) {
	quiet := server(t, func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)) })
	flood := server(t, func(c *net.TCPConn) {
		for _, err := c.Write(make([]byte, 1<<16)); err == nil; _, err = c.Write(make([]byte, 1<<16)) {
		}
	})
	good := newAuthority(t).issue("server", time.Now().Add(time.Hour))
	upgrade := "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	for _, c := range []struct{ layers, target, send, says, json string }{
		{"+idle:200ms", quiet, "", "PEER: idle: nothing passed, either way, for 200ms", "idle"},
		{"+idle,stall=400ms", flood, "", "PEER: idle: accepted nothing of what waits for it for 400ms (stall)", "idle"},
		{"+idle,min-rate=1k,window=300ms", quiet, "", "PEER: idle: sent less than min-rate, over 300ms", "idle"},
		{"+ws,ping=200ms", quiet, upgrade, "PEER: ws: silent, and no pong within 200ms of the ping", "ws"},
		{"+idle:300ms+tls,timeout=30s" + good, quiet, "", "no connection with PEER: handshake: idle: nothing passed, either way, for 300ms", ""},
		{"+tls,timeout=200ms" + good, quiet, "", "no connection with PEER: handshake: timed out in tls", ""},
		{"+ws,timeout=200ms", quiet, "", "no connection with PEER: handshake: timed out in ws", ""},
	} {
		t.Run(c.layers[:strings.IndexAny(c.layers+",", ",")], func(t *testing.T) {
			p := start(t, "0"+c.layers, c.target)
			conn := dial(t, p.listening())
			send(t, conn, c.send)
			p.line(strings.ReplaceAll(c.says, "PEER", conn.LocalAddr().String()), 1)
			p.signal(os.Interrupt)
			if code := p.end(); code != exitOK {
				t.Errorf("code %d", code)
			}
			if c.json == "" {
				return
			}
			p = start(t, "--log", "json", "0"+c.layers, c.target)
			conn = dial(t, p.listeningJSON())
			send(t, conn, c.send)
			says := strings.TrimPrefix(c.says, "PEER: ")
			for _, want := range []string{`"reason":"` + says + `"`, `"layer":"` + c.json + `"`, `"closed_by":"` + conn.LocalAddr().String() + `"`} {
				if l := p.line(`"msg":"close"`, 1); !strings.Contains(l, want) {
					t.Errorf("%s is not in %s", want, l)
				}
			}
		})
	}
}

// send writes text; for "" it makes no write, because even an empty write fails after a reset.
func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if text == "" {
		return
	}
	if err := write(c, text); err != nil {
		t.Fatal(err)
	}
}
