// Package rig has helpers that several packages of tests use.
package rig

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"testing"
	"time"
)

// Pattern is byte i of a stream whose bytes show their position.
func Pattern(i int) byte { return byte(i*7 + i>>8 + i>>16) }

// TLS makes certificates for server.test and other.test, and a client configuration that
// trusts them and asks for the first. Their signatures all have the same length, so that
// simulated runs do not differ.
func TLS(tb testing.TB) (own [2]*tls.Config, trust *tls.Config) {
	tb.Helper()
	roots := x509.NewCertPool()
	for i, name := range []string{"server.test", "other.test"} {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			tb.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<36, 0), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		}
		der, err := x509.CreateCertificate(nil, c, c, public, private)
		if err != nil {
			tb.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			tb.Fatal(err)
		}
		roots.AddCert(leaf)
		own[i] = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}}}
	}
	return own, &tls.Config{RootCAs: roots, ServerName: "server.test"}
}
