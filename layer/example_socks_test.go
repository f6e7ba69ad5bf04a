package layer_test

import (
	"fmt"
	"net/netip"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/relay"
)

// gateway joins a client of a proxy to where it asks to go, within the rules, and
// tells it how that went.
func gateway(t weir.Transport, rules *layer.Access) weir.Protocol {
	request := layer.RequestOf(t)
	request.Hold() // the answer comes later
	var (
		r  *relay.Relay
		up *weir.Connector
	)
	r = relay.New(relay.Config{
		Connected: func() { request.Accept(r.Transport(relay.B).LocalAddr()) },
		Failed: func(_ relay.Side, err *weir.ConnectError) bool {
			request.Refuse(err)
			return false
		},
		Abandon: func(relay.Side) { up.Stop() },
	})
	// The rules hold for addresses, once a name is resolved.
	within := weir.WithAddrFilter(func(a netip.AddrPort) error { return rules.Check(a.Addr()) })
	up = t.Loop().Connect("tcp", request.Destination(), r.Protocol(relay.B), within)
	return r.Protocol(relay.A)
}

// A SOCKS proxy for those who know a password, and a client that speaks TLS
// through it: the proxy carries what it cannot read.
func ExampleSOCKSServer() {
	l, err := weir.New()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	serverTLS, clientTLS := fitting()
	server, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(shout, layer.TLSServer(serverTLS)))
	if err != nil {
		panic(err)
	}

	users := layer.NewUsers(map[string]string{"ann": "secret"})
	rules := &layer.Access{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	proxy, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(
		func(t weir.Transport) weir.Protocol { return gateway(t, rules) },
		layer.SOCKSServer(layer.Version5, layer.WithUsers(users)),
	))
	if err != nil {
		panic(err)
	}

	l.Connect("tcp", proxy.Addr().String(), layer.Client(say(l, "hello"),
		layer.SOCKS5(server.Addr().String(), layer.WithProxyUser("ann", "secret")),
		layer.TLS(clientTLS),
	))
	if err := l.Run(); err != nil {
		panic(err)
	}
	fmt.Println("connections of the proxy:", proxy.Conns())
	// Output:
	// hello!
	// connections of the proxy: 1
}
