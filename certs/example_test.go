package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/weir-io/weir/certs"
)

// A crypto/tls server whose certificates are read again when their files change.
func ExampleNewFiles() {
	files, err := certs.NewFiles("server.pem", "server.key", func(err error) {
		fmt.Println("the old certificates stay:", err)
	})
	if err != nil {
		fmt.Println("no certificate:", err != nil)
		return
	}
	_ = &tls.Config{GetCertificate: files.GetCertificate}
	// Output: no certificate: true
}

// Rules choose which peers to accept among those that an authority vouches for.
func ExamplePeerRules() {
	rules := certs.PeerRules{CommonNames: []string{"billing"}, DNSNames: []string{"*.corp.test"}}
	fmt.Println(rules)
	fmt.Println(rules.Allow(&x509.Certificate{DNSNames: []string{"db.corp.test"}}))
	fmt.Println(rules.Check(&x509.Certificate{DNSNames: []string{"db.other.test"}}))
	// Output:
	// CN billing or DNS *.corp.test
	// true
	// the certificate is valid, but not one that is allowed
}
