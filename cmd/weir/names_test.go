package main

import (
	"bytes"
	"net"
	"os"
	"strings"
	"testing"
)

// everyName is a name server for whom every name has the address 192.0.2.7.
func everyName(t *testing.T) (at string) {
	t.Helper()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			end := 12 + bytes.IndexByte(buf[12:n], 0) + 5
			reply := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0}, buf[12:end]...)
			reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7)
			_, _ = server.WriteTo(reply, from)
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return server.LocalAddr().String()
}

// TestNames: weir asks weir for a name over UDP, that one another over TCP, and that
// one a name server.
func TestNames(t *testing.T) {
	second := start(t, "dns-listen:127.0.0.1:0", "udp:"+everyName(t))
	first := start(t, "dns-listen:127.0.0.1:0", second.listening())
	for range 2 {
		if r := call(t, "dns", "a.test", "A", "--server", first.listening()); r.code != exitOK || !strings.Contains(r.out, "192.0.2.7") {
			t.Errorf("%+v", r)
		}
	}
	for _, p := range []*process{first, second} {
		p.signal(os.Interrupt)
		if code := p.end(); code != exitOK {
			t.Errorf("code %d", code)
		}
	}
	first.line("done 2 questions, 0 failed, 0 TCP connections", 1)
	second.line("done 1 question, 0 failed, 1 TCP connection,", 1) // the first has a cache
}

func TestNamesUsage(t *testing.T) {
	for args, want := range map[string]string{
		"dns-listen:5353 udp:ns.test:53":            "would have to be looked up first",
		"dns-listen:5353 -":                         "cannot ask",
		"dns-listen:5353 resolver udp:9.9.9.9:53":   "one other side",
		"udp-listen:5353 resolver":                  "goes first",
		"resolver dns-listen:5353":                  "goes first",
		"dns-listen:5353 udp:9.9.9.9:53+tls":        `layer "tls" is for streams`,
		"dns-listen:5353 udp:9.9.9.9:53+loss:0.1":   "no layer",
		"dns-listen:5353+latency:1s udp:9.9.9.9:53": "no layer",
	} {
		if r := call(t, strings.Fields(args)...); r.code != exitUsage || !strings.Contains(r.err, want) {
			t.Errorf("weir %s: %+v, want %q", args, r, want)
		}
	}
	r := call(t, "explain", "dns-listen:5353", "9.9.9.9:853+tls")
	if r.code != exitOK || !strings.Contains(r.out, "Every question") {
		t.Errorf("%+v", r)
	}
}
