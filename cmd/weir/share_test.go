package main

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir/dns"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/relay"
)

// TestNamesShared: the names that sessions look up count for the addresses that their
// clients come from, with one target and with several (S5).
func TestNamesShared(t *testing.T) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	const refused = "too many names are being looked up at a time"
	for name, words := range map[string][]string{
		"one target":      {"1080+socks5", "dial"},
		"several targets": {"1080+socks5", "dial", "dial"},
	} {
		t.Run(name, func(t *testing.T) {
			var said bytes.Buffer
			c := &command{stderr: &said, lookupEnv: func(string) (string, bool) { return "", false }, table: endpoint.Default()}
			p, err := c.plan(words, nil, flags{})
			if err != nil {
				t.Fatal(err)
			}
			a, err := newApp(c, p, flags{}, newReporter(c, flags{}))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := a.loop.Close(); err != nil {
					t.Error(err)
				}
			}()
			a.names = dns.New(dns.WithServers(silent.LocalAddr().(*net.UDPAddr).AddrPort()), dns.WithTimeout(time.Hour, 1), dns.WithAskerLimit(2))
			ask := func(client, to string) {
				s := a.newSession()
				s.asked = &endpoint.Asked{Source: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client)), To: to}
				s.connect(relay.B)
			}
			ask("192.0.2.1:1000", "one.test:80")
			ask("192.0.2.2:1000", "two.test:80")
			if err := a.loop.Turn(0); err != nil {
				t.Fatal(err)
			}
			if said.Len() > 0 {
				t.Errorf("two clients, a name each:\n%s", said.String())
			}
			ask("192.0.2.1:1001", "three.test:80") // one name more than its share
			for end := time.Now().Add(patience); !strings.Contains(said.String(), refused); {
				if time.Now().After(end) {
					t.Fatalf("nothing was refused:\n%s", said.String())
				}
				if err := a.loop.Turn(10 * time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
