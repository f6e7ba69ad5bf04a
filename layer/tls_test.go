package layer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

// authority issues certificates for tests.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

// issue is what a certificate says.
type issue struct {
	cn         string
	dns        []string
	uri        string
	from, till time.Time // zero: a day around now
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key = key
	return a
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) issue(i issue) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.last++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.last), Subject: pkix.Name{CommonName: i.cn},
		DNSNames: i.dns, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if !i.from.IsZero() {
		template.NotBefore, template.NotAfter = i.from, i.till
	}
	if i.uri != "" {
		u, err := url.Parse(i.uri)
		if err != nil {
			a.t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// tlsPair is a server's and a client's configuration that fit.
func tlsPair(t testing.TB, version uint16) (server, client *tls.Config) {
	t.Helper()
	a := newAuthority(t)
	server = &tls.Config{Certificates: []tls.Certificate{a.issue(issue{cn: "server", dns: []string{"server.test"}})}, MaxVersion: version}
	client = &tls.Config{RootCAs: a.pool(), ServerName: "server.test", MaxVersion: version}
	return server, client
}

// TestTLS: a TLS connection is a stream like any other (R38, R39, behaviours 20 to 47).
func TestTLS(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	// Many cases leave a close_notify unanswered: a second each would be long.
	soon := layer.WithCloseTimeout(10 * time.Millisecond)
	s, c := layer.TLSServer(server, soon), layer.TLS(client, soon)
	if raceEnabled {
		// Encryption is slow under the detector: one layer of it has to do.
		t.Run("one", func(t *testing.T) { suiteIn(t, weirtest.OneBackend, []layer.Layer{s}, []layer.Layer{c}) })
		return
	}
	t.Run("one", func(t *testing.T) { suiteIn(t, weirtest.Everywhere, []layer.Layer{s}, []layer.Layer{c}) })
	t.Run("between two", func(t *testing.T) {
		suite(t, []layer.Layer{plain, s, plain}, []layer.Layer{plain, c, plain})
	})
	t.Run("with workers", func(t *testing.T) {
		w := layer.WithHandshakeWorkers(2)
		suite(t, []layer.Layer{layer.TLSServer(server, w, soon)}, []layer.Layer{layer.TLS(client, w, soon)})
	})
	t.Run("over TLS", func(t *testing.T) { suite(t, []layer.Layer{s, s}, []layer.Layer{c, c}) })
}

// TestTLSSteady: a message costs the one allocation that crypto/tls makes to read
// a record, and none of ours (R6).
func TestTLSSteady(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	server, client := tlsPair(t, tls.VersionTLS13)
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // it has goroutines of its own
		}
		t.Run(name, func(t *testing.T) {
			if n := steady(t, name, []layer.Layer{layer.TLSServer(server)}, []layer.Layer{layer.TLS(client)}); n > 1 {
				t.Errorf("%.2f allocations a message", n)
			}
		})
	}
}
