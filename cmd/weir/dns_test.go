package main

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers A and TXT questions about here.test on loopback, and says
// that no other name exists.
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
			if b := nameReply(buf[:n]); b != nil {
				_, _ = conn.WriteTo(b, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// nameReply is a nameServer's reply to a query, if it can be read.
func nameReply(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}
	switch known := strings.EqualFold(q.Name.String(), "here.test."); {
	case !known:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
	case q.Type == dnsmessage.TypeSOA:
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.SOAResource{
			NS: dnsmessage.MustNewName("NS.here.test."), MBox: dnsmessage.MustNewName("root.here.test."), Serial: 7, Refresh: 7200, Retry: 3600, Expire: 1209600, MinTTL: 5,
		}}}
	case q.Type == 257:
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.UnknownResource{Type: q.Type, Data: []byte("\x00\x05issueca.test")}}}
	case q.Type == dnsmessage.TypeTXT:
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.TXTResource{TXT: []string{"a\x1b[31m\n"}}}}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// secureNameServer is a nameServer that takes queries over TLS, with cert.pem
// and cert.key.
func secureNameServer(t *testing.T, cert string) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert+".pem", cert+".key")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				for {
					var size [2]byte
					if _, err := io.ReadFull(c, size[:]); err != nil {
						return
					}
					query := make([]byte, binary.BigEndian.Uint16(size[:]))
					if _, err := io.ReadFull(c, query); err != nil {
						return
					}
					b := nameReply(query)
					if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
						return
					}
				}
			})
		}
	})
	return l.Addr().String()
}

func TestDNS(t *testing.T) {
	at := nameServer(t)
	a := newAuthority(t)
	a.issue("dns", time.Now().Add(time.Hour), "dns.test")
	secure, ca := secureNameServer(t, filepath.Join(a.dir, "dns")), ",ca="+a.ca()
	for _, c := range []struct {
		args string
		code int
		out  string
		err  string // what it contains
	}{
		{"here.test --server " + at, exitOK, "192.0.2.1\n", ""},
		{"here.test. A --server=" + at, exitOK, "here.test. 60 IN A 192.0.2.1\n", ""},
		{"here.test txt --server " + at, exitOK, `here.test. 60 IN TXT "a\027[31m\010"` + "\n", ""},
		{"here.test soa --server " + at, exitOK, "here.test. 60 IN SOA ns.here.test. root.here.test. 7 7200 3600 1209600 5\n", ""},
		{"here.test caa --server " + at, exitOK, `here.test. 60 IN CAA 0 issue "ca.test"` + "\n", ""},
		{"here.test type257 --server " + at, exitOK, `here.test. 60 IN CAA 0 issue "ca.test"` + "\n", ""},
		{"here.test mx --server " + at, exitFailure, "", "weir: here.test: the name has no records of type MX"},
		{"gone.test --server " + at, exitFailure, "", "weir: gone.test: there is no such name"},
		{"here.test -v --server " + at, exitOK, "192.0.2.1\n", "udp " + at},
		{"here.test --server " + secure + "+tls" + ca, exitOK, "192.0.2.1\n", ""},
		{"here.test A -v --server " + secure + "+tls,name=dns.test" + ca, exitOK, "here.test. 60 IN A 192.0.2.1\n", "tcp+tls " + secure},
		{"gone.test --server " + secure + "+tls" + ca, exitFailure, "", "weir: gone.test: there is no such name"},
		{"here.test --server " + secure + "+tls,name=other.test" + ca, exitFailure, "", "other.test"},
		{"here.test --server " + secure + "+tls", exitFailure, "", "unknown authority"},
		{"here.test --server " + secure + "+tsl", exitUsage, "", `did you mean "tls"?`},
		{"here.test --server " + secure + "+tls,ca=/nowhere.pem", exitFailure, "", "/nowhere.pem"},
		{"127.0.0.1", exitOK, "localhost.", ""},
		{"localhost", exitOK, "127.0.0.1", ""},
		{"a..b", exitFailure, "", "not a host name"},
		{"", exitUsage, "", "which name?"},
		{"a b c", exitUsage, "", "one name and one type"},
		{"a B", exitUsage, "", "unknown type"},
		{"a --sever x", exitUsage, "", "did you mean --server?"},
		{"a --server", exitUsage, "", "--server needs an address"},
		{"a --server x", exitUsage, "", `"x" is not the address of a server`},
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
	for _, c := range []struct{ s, layers, want, base string }{
		{"192.0.2.1", "", "192.0.2.1:53", "192.0.2.1:53"},
		{"192.0.2.1:5353", "tls", "192.0.2.1:5353", "192.0.2.1:5353"},
		{"192.0.2.1", "tls,ca=x", "192.0.2.1:853", "192.0.2.1:853"},
		{"::1", "", "[::1]:53", "::1:53"},
		{"[::1]", "tls", "[::1]:853", "::1:853"},
		{"::1", "socks5:x:1", "[::1]:53", "::1:53"},
		{"[fe80::1%eth0]:53", "", "[fe80::1%eth0]:53", "fe80::1%eth0:53"},
		{s: "host"},
		{s: ""},
		{s: "1.2.3.4:x"},
	} {
		a, err := serverAddr(c.s, c.layers)
		if c.want == "" {
			if err == nil {
				t.Errorf("%q: %v", c.s, a)
			}
			continue
		}
		if err != nil || a != netip.MustParseAddrPort(c.want) || unbracketed(a) != c.base {
			t.Errorf("%q: %v, %v", c.s, a, err)
		}
	}
}
