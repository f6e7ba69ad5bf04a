package dns_test

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/dns"
	"github.com/weir-io/weir/layer"
)

// A loop with a resolver connects by name.
func ExampleNew() {
	l, err := weir.NewLoop(weir.WithResolver(dns.New()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	// l.Connect("tcp", "example.com:80", protocol) finds the name without a thread.
	fmt.Println("ready")
	// Output: ready
}

// DNS over TLS is the TLS layer on the resolver's stream.
func ExampleWithStream() {
	secure := layer.TLS(&tls.Config{ServerName: "dns.example", MinVersion: tls.VersionTLS12})
	r := dns.New(
		dns.WithServers(netip.MustParseAddrPort("192.0.2.53:853")),
		dns.WithStream(func(l *weir.Loop, server netip.AddrPort, p weir.Protocol) func() {
			c := l.Connect("tcp", server.String(), layer.Client(p, secure))
			return func() { c.Stop() }
		}),
	)
	l, err := weir.NewLoop(weir.WithResolver(r))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	// l.Connect("tcp", "example.com:80", protocol) finds the name, and no one can read it on the way.
	fmt.Println("ready")
	// Output: ready
}

// Any record can be looked up; for what the hosts file knows, no server is
// asked.
func ExampleResolver_LookupNetIP() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	hosts, _ := dns.ParseHosts(strings.NewReader("192.0.2.7 box"))
	r := dns.New(dns.WithHosts(hosts))
	r.LookupNetIP(l, "ip", "box", func(addrs []netip.Addr, err error) {
		fmt.Println(addrs, err)
		l.Stop()
	})
	if err := l.Run(); err != nil {
		fmt.Println(err)
	}
	// Output: [192.0.2.7] <nil>
}
