package main

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TestLedToEachOther: a client of two weirs that lead to each other gets as many
// connections between them as one address may have, not more; the last one is
// refused, and all of them end with it. Both go on serving (C2).
func TestLedToEachOther(t *testing.T) {
	port := freePort(t)
	first := crowded(t, "tcp-listen:127.0.0.1:0,connections=20", port)
	at := first.listening()
	second := crowded(t, "tcp-listen:"+port+",connections=40", at)
	second.line("ready", 1)
	before := [2]int{first.sockets(), second.sockets()}
	for range 3 {
		// Its end may come at any time, even before connect has returned.
		if c, err := net.DialTimeout("tcp", at, patience); err == nil {
			err := errors.Join(c.SetDeadline(time.Now().Add(patience)), write(c, "around"))
			n, end := io.Copy(io.Discard, c)
			if err = errors.Join(err, end); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d bytes came back, %v", n, err)
			}
			_ = c.Close() // it may be reset
		}
		for i, p := range []*process{first, second} {
			patiently(t, "end of all connections", func() bool { return p.sockets() <= before[i] })
		}
	}
	first.line("refused", 1)
	for _, p := range []*process{first, second} {
		p.signal(os.Interrupt)
		if code := p.end(); code != exitOK {
			t.Errorf("code %d", code)
		}
		if n := strings.Count(p.said(), " open #"); n > 3*20 {
			t.Errorf("%d connections for three clients", n)
		}
	}
}

// TestSilentNamesOfOne: a target whose name no server resolves holds up neither a
// connection nor a check: the next target serves (C4).
func TestSilentNamesOfOne(t *testing.T) {
	// If the next target had to wait for the silence to be over, that would take
	// longer than a test's patience.
	if !inNetworkOfOwn(t, "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n") {
		return
	}
	s := serveNamesAt(t, "127.0.0.1:53")
	s.silent.Store(true)
	serves := echoing(t)
	for _, args := range [][]string{{"--pick", "first"}, {"--check", "50ms"}, {"--pick", "first", "--stale", "0"}} {
		p := start(t, append([]string{"tcp-listen:127.0.0.1:0", "new.test:1", serves}, args...)...)
		at := p.listening()
		for range 3 {
			c := dial(t, at)
			alive(t, c)
			_ = c.Close() // it has all that it wants
		}
		if name := <-s.missed; name != "new.test." {
			t.Errorf("%s was asked for", name)
		}
		p.signal(os.Interrupt)
		if code := p.end(); code != exitOK {
			t.Errorf("%v: code %d", args, code)
		}
	}
}
