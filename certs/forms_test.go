package certs_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/weir-io/weir/certs"
)

// utf16Of is a text in UTF-16.
func utf16Of(s string, order binary.AppendByteOrder, mark bool) []byte {
	var b []byte
	if mark {
		b = order.AppendUint16(b, 0xfeff)
	}
	for _, u := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, u)
	}
	return b
}

// issuedChain is a root, two authorities below it and a leaf, leaf first, with the
// leaf's key.
func issuedChain(t *testing.T) (certs []string, key string) {
	t.Helper()
	var parent *x509.Certificate
	var signer *ecdsa.PrivateKey
	for i, name := range []string{"root", "upper", "lower", "leaf.test"} {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: i < 3, BasicConstraintsValid: true, DNSNames: []string{name},
		}
		if parent == nil {
			parent, signer = c, k
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		if parent, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		signer = k
		certs = append([]string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}, certs...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return certs, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// TestCertificateForms: files as editors, Windows shells, certbot and Kubernetes write
// them, with the chain in any order.
func TestCertificateForms(t *testing.T) {
	chain, key := issuedChain(t)
	join := func(order ...int) string {
		s := ""
		for _, i := range order {
			s += chain[i]
		}
		return s
	}
	ordered := join(0, 1, 2, 3)
	crlf := func(s string) string { return string(bytes.ReplaceAll([]byte(s), []byte("\n"), []byte("\r\n"))) }
	le := func(s string) string { return string(utf16Of(s, binary.LittleEndian, true)) }
	for _, c := range []struct {
		name      string
		files     map[string]string
		cert, key string
	}{
		{"in order", map[string]string{"c": ordered, "k": key}, "c", "k"},
		{"root first", map[string]string{"c": join(3, 2, 1, 0), "k": key}, "c", "k"},
		{"leaf in the middle", map[string]string{"c": join(2, 0, 3, 1), "k": key}, "c", "k"},
		{"with the key", map[string]string{"c": key + join(3, 0, 1, 2)}, "c", ""},
		{"marks", map[string]string{"c": "\ufeff" + chain[0] + "\ufeff" + chain[1] + "\ufeff" + join(2, 3), "k": "\ufeff" + key}, "c", "k"},
		{"CRLF", map[string]string{"c": "\ufeff" + crlf(ordered), "k": crlf(key)}, "c", "k"},
		{"CR", map[string]string{"c": string(bytes.ReplaceAll([]byte(ordered), []byte("\n"), []byte("\r"))), "k": key}, "c", "k"},
		{"UTF-16", map[string]string{"c": le(ordered), "k": string(utf16Of(key, binary.BigEndian, false))}, "c", "k"},
		{"certbot", map[string]string{
			"live/README": "x", "live/cert.pem": chain[0], "live/chain.pem": join(1, 2, 3), "live/fullchain.pem": ordered, "live/privkey.pem": key,
		}, "live", ""},
		{"certbot's parent", map[string]string{
			"live/README": "x", "live/a/cert.pem": chain[0], "live/a/chain.pem": join(1, 2, 3), "live/a/fullchain.pem": ordered, "live/a/privkey.pem": key,
		}, "live", ""},
		{"Kubernetes", map[string]string{"tls/ca.crt": chain[3], "tls/tls.crt": ordered, "tls/tls.key": key}, "tls", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				path := filepath.Join(dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			keyFile := ""
			if c.key != "" {
				keyFile = filepath.Join(dir, c.key)
			}
			f, err := certs.NewFiles(filepath.Join(dir, c.cert), keyFile, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.GetCertificate(&tls.ClientHelloInfo{})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, der := range got.Certificate {
				x, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, x.Subject.CommonName)
			}
			if !slices.Equal(names, []string{"leaf.test", "lower", "upper", "root"}) {
				t.Errorf("the chain is %v", names)
			}
			if got.Leaf == nil || got.Leaf.Subject.CommonName != "leaf.test" {
				t.Errorf("the leaf is %v", got.Leaf)
			}
		})
	}
	// The same for authorities.
	for _, text := range []string{"\ufeff" + chain[3] + "\ufeff" + chain[2], le(join(3, 2)), crlf(join(3, 2))} {
		path := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := certs.NewAuthorityFile(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := x509.NewCertPool()
		want.AppendCertsFromPEM([]byte(join(3, 2)))
		if !a.Pool().Equal(want) {
			t.Errorf("%.10q: other authorities", text)
		}
	}
}
