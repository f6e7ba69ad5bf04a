package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// sockets is how many sockets a process has open. Other descriptors come and go by
// themselves: Go's own poller is opened by the first timer of the runtime.
func (p *process) sockets() int {
	p.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", p.Process.Pid)
	all, err := os.ReadDir(dir)
	if err != nil {
		p.t.Fatal(err)
	}
	n := 0
	for _, e := range all {
		// A descriptor may be closed meanwhile.
		if leads, err := os.Readlink(dir + "/" + e.Name()); err == nil && strings.HasPrefix(leads, "socket:") {
			n++
		}
	}
	return n
}

// TestHangUp: a client that leaves while its connect is under way, by a reset
// or a close, is noticed, and its connect ends (S6).
func TestHangUp(t *testing.T) {
	to := fullListener(t)
	for _, proxy := range []bool{false, true} {
		for _, reset := range []bool{false, true} {
			t.Run(fmt.Sprintf("proxy %v, reset %v", proxy, reset), func(t *testing.T) {
				args := []string{"tcp-listen:127.0.0.1:0", to + ",connect-timeout=10m"}
				if proxy {
					args = []string{"tcp-listen:127.0.0.1:0+socks5", "dial,timeout=10m"}
				}
				p := start(t, args...)
				at := p.listening()
				before := p.sockets()
				c := dial(t, at)
				if proxy {
					if err := write(c, socksTo(netip.MustParseAddrPort(to))); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
						t.Fatal(err)
					}
				}
				patiently(t, "a connect under way", func() bool { return p.sockets() >= before+2 })
				if reset {
					if err := c.SetLinger(0); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				patiently(t, "the end of the connect", func() bool { return p.sockets() <= before })
			})
		}
	}
}

// patiently polls until a condition holds, for things without an event: the
// descriptors of another process.
func patiently(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
