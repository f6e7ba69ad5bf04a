package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
)

// shout is a server of lines.
func shout(t weir.Transport) weir.Protocol {
	return frame.Lines(func(line []byte) error {
		_, err := fmt.Fprintf(t, "%s!\n", line)
		return err
	})
}

// say is a client that sends a line and stops the loop when it has the answer.
func say(l *weir.Loop, line string) weir.Protocol {
	return frame.Lines(
		func(answer []byte) error {
			fmt.Printf("%s\n", answer)
			l.Stop()
			return nil
		},
		frame.OnMade(func(t weir.Transport) { fmt.Fprintln(t, line) }),
	)
}

// fitting returns a TLS configuration for a server and one for its client.
func fitting() (server, client *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"server.test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: trusted, ServerName: "server.test"}
}
