package main

import (
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestTargetRestarts: a target behind TLS goes in the middle of a session and comes
// back: the session ends, the next one waits for the target (,retry=), connects
// again and resumes the TLS session (R39, R45).
func TestTargetRestarts(t *testing.T) {
	a := newAuthority(t)
	a.issue("srv", time.Now().Add(time.Hour), "localhost")
	pair, err := tls.LoadX509KeyPair(filepath.Join(a.dir, "srv.pem"), filepath.Join(a.dir, "srv.key"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}}
	cfg.SetSessionTicketKeys([][32]byte{{7}}) // as a server that restarts keeps them
	var mu sync.Mutex
	var resumed []bool
	open := map[net.Conn]bool{}
	serve := func(at string) net.Listener {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				open[c] = true
				mu.Unlock()
				go func() {
					s := tls.Server(c, cfg)
					if s.Handshake() == nil {
						mu.Lock()
						resumed = append(resumed, s.ConnectionState().DidResume)
						mu.Unlock()
						_, _ = io.Copy(s, s) // the test sees what comes back
					}
					_ = s.Close()
				}()
			}
		}()
		return l
	}
	l := serve(freePort(t))
	at := l.Addr().String()
	_, port, _ := net.SplitHostPort(at)
	p := start(t, "tcp-listen:127.0.0.1:0", "localhost:"+port+",retry=30s,family=4+tls,eof-wait=10ms,ca="+a.ca())
	relay := p.listening()
	ask := func(c net.Conn) {
		t.Helper()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	for round := range 3 {
		c := dial(t, relay)
		ask(c)
		_ = l.Close()
		mu.Lock()
		for x := range open {
			_ = x.Close()
		}
		clear(open)
		mu.Unlock()
		if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("round %d: the session went on: %v", round, err)
		}
		_ = c.Close()
		// The next one is there before the target is.
		next := dial(t, relay)
		if _, err := io.WriteString(next, "early"); err != nil {
			t.Fatal(err)
		}
		p.line("close", 2*round+1)
		l = serve(at)
		b := make([]byte, 5)
		_ = next.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(next, b); err != nil || string(b) != "early" {
			t.Errorf("round %d: %q, %v", round, b, err)
		}
		ask(next)
		_ = next.Close()
		p.line("close", 2*round+2)
	}
	_ = l.Close()
	mu.Lock()
	defer mu.Unlock()
	if len(resumed) != 6 || resumed[0] {
		t.Errorf("%d sessions, resumed: %v", len(resumed), resumed)
	}
	for i, r := range resumed[1:] {
		if !r {
			t.Errorf("session %d was not resumed: %v", i+2, resumed)
		}
	}
}
