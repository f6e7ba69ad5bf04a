package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates, in files of a directory of its own, where ca.pem is
// the authority's.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("test authority", nil, time.Now().Add(24*time.Hour))
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

// noSAN, as the only name, makes a certificate that has no name except its CN.
const noSAN = "-"

// sign makes a certificate; without an authority yet, the authority's own.
func (a *authority) sign(cn string, names []string, until time.Time) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.last++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: cn}, DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-48 * time.Hour), NotAfter: until,
	}
	if len(names) == 1 && names[0] == noSAN {
		c.DNSNames, c.IPAddresses = nil, nil
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		c.IsCA, c.BasicConstraintsValid, c.IPAddresses = true, true, nil
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes NAME.pem and NAME.key and returns them as options.
func (a *authority) issue(name string, until time.Time, names ...string) string {
	a.t.Helper()
	cert, key := a.sign(name, names, until)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", cert.Raw)
	a.write(name+".key", "PRIVATE KEY", der)
	return ",cert=" + filepath.Join(a.dir, name+".pem") + ",key=" + filepath.Join(a.dir, name+".key")
}

func (a *authority) ca() string { return filepath.Join(a.dir, "ca.pem") }

// TestTLS: weir to weir, with what people see if the certificates are refused:
// their names and dates next to what was expected.
func TestTLS(t *testing.T) {
	a := newAuthority(t)
	soon := time.Now().Add(time.Hour)
	upper := server(t, answer(strings.ToUpper))
	good := a.issue("server", soon, "server.test", "www.server.test")
	old := a.issue("old", time.Now().Add(-24*time.Hour), "server.test")
	bare := a.issue("bare", soon, noSAN)
	mine, guest := a.issue("billing", soon), a.issue("guest", soon)
	for _, c := range []struct {
		name, server, client string
		want                 []string // on the client's standard error; none: it works
		refused              []string // on the server's
	}{
		{name: "it works", server: good, client: ",ca=" + a.ca() + ",name=server.test"},
		{name: "by address", server: good, client: ",ca=" + a.ca()},
		{name: "insecure is loud", server: old, client: ",insecure", want: nil},
		{
			name: "unknown authority", server: good, client: ",name=server.test",
			want:    []string{"signed by no authority that is trusted here", `issued by "CN=test authority"`, "add ,ca=FILE"},
			refused: []string{"the peer sent the alert bad certificate"},
		},
		{
			name: "wrong name", server: good, client: ",ca=" + a.ca() + ",name=other.test",
			want: []string{"for another name", "for server.test, www.server.test", "expected     other.test", "add ,name=server.test"},
		},
		{
			name: "a CN and no SAN", server: bare, client: ",ca=" + a.ca(),
			want: []string{
				"for another name", `for "CN=bare"`, "expected     127.0.0.1",
				"only the subject's CN=bare: whoever runs it needs a new one, with subjectAltName=IP:127.0.0.1",
			},
		},
		{
			name: "a CN and no SAN, by name", server: bare, client: ",name=bare,ca=" + a.ca(),
			want: []string{`for "CN=bare"`, "expected     bare", "with subjectAltName=DNS:bare"},
		},
		{
			name: "only an address", server: mine, client: ",name=billing,ca=" + a.ca(),
			want: []string{"for 127.0.0.1", "expected     billing", "add ,name=NAME"},
		},
		{
			name: "expired", server: old, client: ",ca=" + a.ca() + ",name=server.test",
			want: []string{"has expired", "until " + time.Now().Add(-24*time.Hour).UTC().Format("2006-01-02"), "valid at " + time.Now().UTC().Format("2006-01-02")},
		},
		{
			name: "a client's certificate", server: good + ",client-ca=" + a.ca() + ",allow-cn=billing", client: ",ca=" + a.ca() + mine,
		},
		{
			name: "another client's", server: good + ",client-ca=" + a.ca() + ",allow-cn=billing", client: ",ca=" + a.ca() + guest,
			want:    []string{"bad certificate: it does not accept our certificate"},
			refused: []string{"not one that is allowed", "certificate  for CN guest, 127.0.0.1", "expected     CN billing", "names it"},
		},
		{
			name: "another server's", server: good, client: ",allow-cn=billing,ca=" + a.ca(),
			want: []string{"for CN server, server.test, www.server.test, 127.0.0.1", "expected     CN billing", "add an allow-cn"},
		},
		{
			name: "no client's", server: good + ",client-ca=" + a.ca(), client: ",ca=" + a.ca(),
			want:    []string{"it does not accept our certificate"},
			refused: []string{"the client sent no certificate"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := start(t, "0+tls"+c.server, upper)
			p := prepare(t, "weir", "-", srv.listening()+"+tls"+c.client)
			p.Stdin = strings.NewReader("request")
			var out bytes.Buffer
			p.Stdout = &out
			p.begin()
			code := p.end()
			if works := len(c.want) == 0; works != (code == exitOK) || works != (out.String() == "REQUEST") {
				t.Errorf("code %d, got %q", code, out.String())
			}
			for _, want := range c.want {
				p.line(want, 1)
			}
			for _, want := range c.refused {
				srv.line(want, 1)
			}
			if strings.Contains(c.client, "insecure") {
				p.line("INSECURE", 1)
			}
		})
	}
}

// TestTLSUsage: mistakes that are found before anything is opened.
func TestTLSUsage(t *testing.T) {
	for line, want := range map[string]string{
		"8080+tls localhost:1":                         "a TLS server needs a certificate",
		"8080+tls,cert=a,ca=b localhost:1":             `did you mean "client-ca"?`,
		"8080 localhost:1+tls,client-ca=b":             `did you mean "ca"?`,
		"8080 localhost:1+tls,key=b":                   "a key without its certificate",
		"8080 localhost:1+tls,insecure,ca=b":           "cannot be combined",
		"8080+tls,cert=a,allow-cn=b localhost:1":       "add ,client-ca=FILE",
		"8080 localhost:1+tls,min=1.1":                 `did you mean "1.2"?`,
		"8080 localhost:1+tls,alpn=h2,alpn=x,min=1.30": `did you mean "1.3"?`,
		"8080 localhost:1+tls,name=a,name=b":           "is given twice",
	} {
		r := call(t, strings.Fields(line)...)
		if r.code != exitUsage || !strings.Contains(r.err, want) {
			t.Errorf("%s: code %d: %s", line, r.code, r.err)
		}
	}
	for line, want := range map[string]string{
		"8080 /run/app.sock+tls":                  "add ,name=NAME",
		"8080+tls,cert=/nowhere.pem localhost:1":  "/nowhere.pem",
		"8080 localhost:1+tls,ca=/nowhere/ca.pem": "/nowhere/ca.pem",
	} {
		r := call(t, strings.Fields(line)...)
		if r.code != exitFailure || !strings.Contains(r.err, want) {
			t.Errorf("%s: code %d: %s", line, r.code, r.err)
		}
	}
}
