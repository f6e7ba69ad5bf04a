package dns_test

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/dns"
)

// A loop with a resolver connects by name.
func ExampleNew() {
	l, err := weir.New(weir.WithResolver(dns.New()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	// l.Connect("tcp", "example.com:80", protocol) finds the name without a thread.
	fmt.Println("ready")
	// Output: ready
}

// Any record can be asked for; what the hosts file knows is not.
func ExampleResolver_LookupNetIP() {
	l, err := weir.New()
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
