package weirtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	bigint "math/big"
	"testing"
	"testing/cryptotest"
	"time"
)

// ServerName is the name that the certificate of Sim.TLS is for.
const ServerName = "server.test"

// TLS makes the run of a world with TLS, WebSocket or anything else that draws
// cryptographic random numbers repeat from its seed, byte for byte, and returns
// what a server and its clients need: a certificate for ServerName, and the trust
// in it. It sets three things for that: the source of random numbers of the whole
// process, for as long as t runs (so t cannot be parallel); the clock of both
// configurations, which is the world's; and the certificate, whose key is drawn
// from the seed. Call it before anything is drawn. The configurations may be
// changed, for layer.TLSServer and layer.TLS.
func (s *Sim) TLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, s.seed)
	began := s.world.WallNow().Add(-s.Now())
	clock := func() time.Time { return began.Add(s.Now()) }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: bigint.NewInt(1), Subject: pkix.Name{CommonName: ServerName}, DNSNames: []string{ServerName},
		NotBefore: began.Add(-24 * time.Hour), NotAfter: began.AddDate(30, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, Time: clock}
	client = &tls.Config{RootCAs: roots, ServerName: ServerName, Time: clock}
	return server, client
}
