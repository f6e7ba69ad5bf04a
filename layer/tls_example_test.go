package layer_test

import (
	"bytes"
	"crypto/tls"
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/certs"
	"github.com/weir-io/weir/layer"
)

// A server that shouts back over TLS, for clients that an authority vouches
// for. Its certificates are read again when their files change.
func ExampleTLSServer() {
	files, err := certs.NewFiles("server.pem", "server.key", nil)
	if err != nil {
		fmt.Println("no certificate:", err != nil)
		return
	}
	clients, err := certs.NewAuthorityFile("clients.pem", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	shout := func(t weir.Transport) weir.Protocol {
		return weir.DataFunc(func(p []byte) (int, error) { return t.Write(bytes.ToUpper(p)) })
	}
	secured := layer.Server(shout, layer.TLSServer(
		&tls.Config{GetCertificate: files.GetCertificate},
		layer.WithClientAuthorities(clients),
		layer.WithPeerRules(certs.PeerRules{CommonNames: []string{"billing"}}),
	))
	fmt.Println(weir.ListenAndServe("tcp", "127.0.0.1:8443", secured))
	// Output: no certificate: true
}
