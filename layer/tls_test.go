package layer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/weirtest"
)

// authority issues certificates for tests.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

// issue is the content of a certificate.
type issue struct {
	cn         string
	cns        []string // further common names, before cn
	dns        []string
	uri        string
	uris       []string  // more
	ca         bool      // it may sign others
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
		i.uris = append([]string{i.uri}, i.uris...)
	}
	for _, text := range i.uris {
		u, err := url.Parse(text)
		if err != nil {
			a.t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	if len(i.cns) > 0 {
		template.Subject = pkix.Name{}
		for _, cn := range append(i.cns, i.cn) {
			template.Subject.ExtraNames = append(template.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: cn})
		}
	}
	if i.ca {
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage |= x509.KeyUsageCertSign
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

// tlsPair returns matching configurations for a server and a client.
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
	// Many cases leave a close_notify unanswered: a second for each would take
	// long.
	soon := layer.WithCloseTimeout(10 * time.Millisecond)
	s, c := layer.TLSServer(server, soon), layer.TLS(client, soon)
	w := layer.WithHandshakeWorkers(2)
	sw, cw := layer.TLSServer(server, w, soon), layer.TLS(client, w, soon)
	if race.Enabled {
		// Encryption is slow under the race detector: the variant with
		// goroutines has to suffice.
		t.Run("with workers", func(t *testing.T) { layertest.SuiteIn(t, weirtest.OneBackend, []layer.Layer{sw}, []layer.Layer{cw}) })
		return
	}
	t.Run("one", func(t *testing.T) { layertest.SuiteIn(t, weirtest.Everywhere, []layer.Layer{s}, []layer.Layer{c}) })
	t.Run("between two", func(t *testing.T) {
		layertest.Suite(t, []layer.Layer{layertest.Plain, s, layertest.Plain}, []layer.Layer{layertest.Plain, c, layertest.Plain})
	})
	t.Run("with workers", func(t *testing.T) { layertest.Suite(t, []layer.Layer{sw}, []layer.Layer{cw}) })
	t.Run("over TLS", func(t *testing.T) { layertest.Suite(t, []layer.Layer{s, s}, []layer.Layer{c, c}) })
}

// TestTLSSteady: a message costs the one allocation that crypto/tls makes to
// read a record, and none by us (R6).
func TestTLSSteady(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	server, client := tlsPair(t, tls.VersionTLS13)
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // it has goroutines of its own
		}
		t.Run(name, func(t *testing.T) {
			if n := layertest.Allocs(t, name, []layer.Layer{layer.TLSServer(server)}, []layer.Layer{layer.TLS(client)}); n > 1 {
				t.Errorf("%.2f allocations a message", n)
			}
		})
	}
}
