package main

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers A and TXT questions about here.test on loopback, and says
// of all other names that there are none.
func nameServer(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}
			switch known := strings.EqualFold(q.Name.String(), "here.test."); {
			case !known:
				m.RCode = dnsmessage.RCodeNameError
			case q.Type == dnsmessage.TypeA:
				m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
			case q.Type == dnsmessage.TypeTXT:
				m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.TXTResource{TXT: []string{"a\x1b[31m\n"}}}}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(b, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

func TestDNS(t *testing.T) {
	at := nameServer(t)
	for _, c := range []struct {
		args string
		code int
		out  string
		err  string // what it has in it
	}{
		{"here.test --server " + at, exitOK, "192.0.2.1\n", ""},
		{"here.test. A --server=" + at, exitOK, "here.test. 60 IN A 192.0.2.1\n", ""},
		{"here.test txt --server " + at, exitOK, `here.test. 60 IN TXT "a\027[31m\010"` + "\n", ""},
		{"here.test mx --server " + at, exitFailure, "", "weir: here.test: the name has no records of type MX"},
		{"gone.test --server " + at, exitFailure, "", "weir: gone.test: there is no such name"},
		{"here.test -v --server " + at, exitOK, "192.0.2.1\n", "udp " + at},
		{"127.0.0.1", exitOK, "localhost.", ""},
		{"localhost", exitOK, "127.0.0.1", ""},
		{"a..b", exitFailure, "", "not a host name"},
		{"", exitUsage, "", "which name?"},
		{"a b c", exitUsage, "", "one name and one type"},
		{"a B", exitUsage, "", "unknown type"},
		{"a --sever x", exitUsage, "", "did you mean --server?"},
		{"a --server", exitUsage, "", "--server needs an address"},
		{"a --server x", exitUsage, "", `"x" is no address of a server`},
		{"--help", exitOK, "weir dns NAME [TYPE]", ""},
	} {
		r := call(t, append([]string{"dns"}, strings.Fields(c.args)...)...)
		ok := r.out == c.out || c.out != "" && !strings.HasSuffix(c.out, "\n") && strings.Contains(r.out, c.out)
		if r.code != c.code || !ok || !strings.Contains(r.err, c.err) || c.err == "" && r.err != "" {
			t.Errorf("weir dns %s: %+v, want code %d, %q, %q", c.args, r, c.code, c.out, c.err)
		}
	}
}

func TestServerAddr(t *testing.T) {
	for s, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:53", "192.0.2.1:5353": "192.0.2.1:5353", "::1": "[::1]:53", "[::1]": "[::1]:53",
		"[fe80::1%eth0]:53": "[fe80::1%eth0]:53", "host": "", "": "", "1.2.3.4:x": "",
	} {
		a, err := serverAddr(s)
		if want == "" {
			if err == nil {
				t.Errorf("%q: %v", s, a)
			}
			continue
		}
		if err != nil || a != netip.MustParseAddrPort(want) {
			t.Errorf("%q: %v, %v", s, a, err)
		}
	}
}
