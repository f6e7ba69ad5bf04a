package proxy_test

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/proxy"
)

// A SOCKS proxy for users with a password, in one call, and a client that
// speaks TLS through it: the proxy carries bytes that it cannot read.
func ExampleServe() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	serverTLS, clientTLS := fitting()
	server, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(shout, layer.TLSServer(serverTLS)))
	if err != nil {
		panic(err)
	}

	users := proxy.NewUsers(map[string]string{"ann": "secret"})
	rules := &proxy.Access{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	dialer := &proxy.Dialer{Access: rules}
	gate, err := l.Listen("tcp", "127.0.0.1:0",
		proxy.Serve(dialer, proxy.SOCKSServer(proxy.Version5, proxy.WithUsers(users))))
	if err != nil {
		panic(err)
	}

	// The addresses that the loop listens on are refused. Here the server is
	// among them, so only the proxy itself is declared as ours.
	rules.Own = func() []net.Addr { return []net.Addr{gate.Addr()} }

	l.Connect("tcp", gate.Addr().String(), layer.Client(say(l, "hello"),
		proxy.SOCKS5(server.Addr().String(), proxy.WithCredentials("ann", "secret")),
		layer.TLS(clientTLS),
	))
	if err := l.Run(); err != nil {
		panic(err)
	}
	fmt.Println("connections of the proxy:", gate.Conns())
	// Output:
	// hello!
	// connections of the proxy: 1
}

// Behind a load balancer the PROXY protocol says who the client is. Only
// trusted peers may say so.
func ExampleHeaderIn() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	who := func(t weir.Transport) weir.Protocol {
		return weir.DataFunc(func(p []byte) (int, error) {
			fmt.Println("a client at", t.RemoteAddr())
			l.Stop()
			return len(p), nil
		})
	}
	balancers := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(who, proxy.HeaderIn(balancers, time.Second)))
	if err != nil {
		panic(err)
	}
	// This is what the balancer does for a client from 192.0.2.7.
	client := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.7:40000"))
	own := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:443"))
	l.Connect("tcp", ln.Addr().String(),
		layer.Client(say(l, "hello"), proxy.HeaderOut(proxy.HeaderV2, client, own)))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: a client at 192.0.2.7:40000
}

// Rules about addresses, for peers and for where a proxy's clients may go:
// weir.WithAddrFilter applies the latter once a name is resolved.
func ExampleAccess() {
	rules := &proxy.Access{Deny: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, a := range []string{"192.0.2.7", "10.1.2.3", "::ffff:10.1.2.3", "192.168.1.1", "169.254.169.254"} {
		fmt.Println(a, rules.Check(netip.MustParseAddr(a)))
	}
	// Output:
	// 192.0.2.7 <nil>
	// 10.1.2.3 not allowed by the rules (10.1.2.3 is in 10.0.0.0/8, which is denied)
	// ::ffff:10.1.2.3 not allowed by the rules (10.1.2.3 is in 10.0.0.0/8, which is denied)
	// 192.168.1.1 not allowed by default (192.168.1.1 is private)
	// 169.254.169.254 not allowed by default (169.254.169.254 is link-local)
}
