package layer_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/certs"
	"github.com/weir-io/weir/layer"
)

// A server for just one of the clients that its authority vouches for. The
// function passed to ServerFunc is told why another client's connection was not
// established.
func ExampleWithPeerRules() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	corp := newAuthority(new(testing.T))
	serverTLS := &tls.Config{
		Certificates: []tls.Certificate{corp.issue(issue{cn: "server", dns: []string{"server.test"}})},
		ClientCAs:    corp.pool(),
	}
	rules := certs.PeerRules{URIs: []string{"spiffe://corp.test/billing/*"}}
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.ServerFunc(shout,
		func(_ weir.Transport, err *weir.AttemptError) {
			var c *layer.CertificateError
			if errors.As(err, &c) {
				fmt.Println("refused:", c.Problem)
			}
			l.Stop()
		},
		layer.TLSServer(serverTLS, layer.WithPeerRules(rules)),
	))
	if err != nil {
		panic(err)
	}

	for _, uri := range []string{"spiffe://corp.test/billing/eu", "spiffe://corp.test/mail"} {
		clientTLS := &tls.Config{
			ServerName:   "server.test",
			RootCAs:      corp.pool(),
			Certificates: []tls.Certificate{corp.issue(issue{uri: uri})},
		}
		l.Connect("tcp", ln.Addr().String(), layer.Client(say(l, "hello"), layer.TLS(clientTLS)))
		if err := l.Run(); err != nil {
			panic(err)
		}
	}
	// Output:
	// hello!
	// refused: not allowed
}
