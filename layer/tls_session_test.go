package layer_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/certs"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// meet makes one connection, exchanges a word each way and closes it. It
// returns the client's TLS state.
func (r *rig) meet(server, client layer.Layer) (tls.ConnectionState, error) {
	r.t.Helper()
	s, c := &layertest.Ear{}, &layertest.Ear{}
	s.OnData = func(p []byte) int { _, _ = s.Tr.Write(p); return len(p) }
	var state tls.ConnectionState
	c.OnMade = func(tr weir.Transport) { state = stateOf(r.t, tr); _, _ = tr.Write([]byte("word")) }
	c.OnData = func(p []byte) int { _ = c.Tr.Close(); return len(p) }
	r.pair(s, []layer.Layer{server}, c, []layer.Layer{client})
	r.until("the end of the meeting", func() bool { return c.Over() && r.loop.Connections() == 0 })
	if c.Failed != nil {
		return state, c.Failed
	}
	return state, c.Err
}

// TestTLSResumption: a client that connects again resumes its session, but not
// after the authority that vouched for it has changed (R39; docs/promises.md,
// TLS).
func TestTLSResumption(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		r := newRig(t)
		s, c := layer.TLSServer(server), layer.TLS(client)
		for i, want := range []bool{false, true, true} {
			state, err := r.meet(s, c)
			if err != nil || state.DidResume != want {
				t.Errorf("connection %d: %v, resumed %v", i+1, err, state.DidResume)
			}
		}
		if state, err := r.meet(s, layer.TLS(client)); err != nil || state.DidResume {
			t.Errorf("another client: %v, resumed %v", err, state.DidResume)
		}
	})
}

func TestTLSResumptionAfterAuthorityChanged(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		old, next := newAuthority(t), newAuthority(t)
		server, client := tlsPair(t, v)
		mine := old.issue(issue{cn: "client"})
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &mine, nil }
		path := filepath.Join(t.TempDir(), "ca.pem")
		writeCerts(t, path, old.cert)
		ca, err := certs.NewAuthorityFile(path, func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		r := newRig(t)
		s, c := layer.TLSServer(server, layer.WithClientAuthorities(ca)), layer.TLS(client)
		for i, want := range []bool{false, true} {
			if state, err := r.meet(s, c); err != nil || state.DidResume != want {
				t.Fatalf("connection %d: %v, resumed %v", i+1, err, state.DidResume)
			}
		}
		writeCerts(t, path, next.cert, next.cert)
		state, err := r.meet(s, c)
		if err == nil {
			t.Errorf("a client of the old authority was accepted, resumed %v", state.DidResume)
		}
		mine = next.issue(issue{cn: "client"})
		if state, err := r.meet(s, c); err != nil || state.DidResume {
			t.Errorf("a client of the new one: %v, resumed %v", err, state.DidResume)
		}
	})
}

// TestTLSRulesHoldForTickets: rules are checked for resumed sessions, too.
func TestTLSRulesHoldForTickets(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		a := newAuthority(t)
		server, client := tlsPair(t, v)
		server.ClientCAs = a.pool()
		server.SetSessionTicketKeys([][32]byte{{1}}) // two servers of one name share them
		client.Certificates = []tls.Certificate{a.issue(issue{cn: "guest"})}
		r := newRig(t)
		c := layer.TLS(client)
		if _, err := r.meet(layer.TLSServer(server, layer.WithPeerRules(certs.PeerRules{CommonNames: []string{"guest"}})), c); err != nil {
			t.Fatal(err)
		}
		if _, err := r.meet(layer.TLSServer(server, layer.WithPeerRules(certs.PeerRules{CommonNames: []string{"host"}})), c); err == nil {
			t.Error("a ticket got past the rules")
		}
	})
}

func writeCerts(t *testing.T, path string, certs ...*x509.Certificate) {
	t.Helper()
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	replace(t, path, text)
}

// replace puts a new file in place of another.
func replace(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// pemOf returns a certificate and its key in PEM.
func pemOf(t *testing.T, c tls.Certificate) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TestCertificateFiles: certificates are read again when their files change, in
// whatever way they are changed, and a connection always finds a certificate.
func TestCertificateFiles(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	var complaints []error
	named := func(name string) (cert, key []byte) {
		return pemOf(t, a.issue(issue{cn: name, dns: []string{"server.test", name}}))
	}
	write := func(sub, name string) {
		t.Helper()
		cert, key := named(name)
		replace(t, filepath.Join(dir, sub, "cert.pem"), cert)
		replace(t, filepath.Join(dir, sub, "key.pem"), key)
	}
	link := func(to string) {
		t.Helper()
		l := filepath.Join(dir, "live")
		if err := errors.Join(os.Symlink(to, l+".new"), os.Rename(l+".new", l)); err != nil {
			t.Skip(err)
		}
	}
	for _, d := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write("one", "first")
	write("two", "second")
	link("one")
	files, err := certs.NewFiles(filepath.Join(dir, "live", "cert.pem"), filepath.Join(dir, "live", "key.pem"), func(err error) { complaints = append(complaints, err) })
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	s := layer.TLSServer(&tls.Config{GetCertificate: files.GetCertificate, SessionTicketsDisabled: true})
	c := layer.TLS(&tls.Config{RootCAs: a.pool(), ServerName: "server.test"})
	expect := func(what, name string, complained int) {
		t.Helper()
		state, err := r.meet(s, c)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := state.PeerCertificates[0].Subject.CommonName; got != name {
			t.Errorf("%s: got the certificate of %s, want %s", what, got, name)
		}
		if len(complaints) != complained {
			t.Errorf("%s: complaints: %v", what, complaints)
		}
	}
	expect("at first", "first", 0)
	link("two")
	expect("the directory's link was exchanged", "second", 0)
	write("two", "third")
	expect("the files were replaced", "third", 0)

	// In the middle of an update the certificate exists and its key does not.
	cert, key := named("fourth")
	replace(t, filepath.Join(dir, "two", "cert.pem"), cert)
	expect("only the certificate was replaced", "third", 1)
	expect("and still", "third", 1)
	replace(t, filepath.Join(dir, "two", "key.pem"), key)
	expect("the key, too", "fourth", 1)
	if err := os.Remove(filepath.Join(dir, "two", "key.pem")); err != nil {
		t.Fatal(err)
	}
	expect("the key is gone", "fourth", 2)
	replace(t, filepath.Join(dir, "two", "key.pem"), key)
	expect("and back", "fourth", 2)
}

// TestCertificateDirectory: SNI chooses among the certificates of a directory.
func TestCertificateDirectory(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	for i, name := range []string{"a.test", "b.test", "*.c.test"} {
		cert, key := pemOf(t, a.issue(issue{cn: name, dns: []string{name}}))
		file := filepath.Join(dir, fmt.Sprint(i))
		if i == 1 { // the key in the same file
			replace(t, file+".pem", append(cert, key...))
			continue
		}
		replace(t, file+".crt", cert)
		replace(t, file+".key", key)
	}
	files, err := certs.NewFiles(dir, "", func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	s := layer.TLSServer(&tls.Config{GetCertificate: files.GetCertificate})
	for asked, want := range map[string]string{"a.test": "a.test", "b.test": "b.test", "x.c.test": "*.c.test"} {
		state, err := r.meet(s, layer.TLS(&tls.Config{RootCAs: a.pool(), ServerName: asked}))
		if err != nil || state.PeerCertificates[0].Subject.CommonName != want {
			t.Errorf("%s: %v", asked, err)
		}
	}
	cert, key := pemOf(t, a.issue(issue{cn: "d.test", dns: []string{"d.test"}}))
	replace(t, filepath.Join(dir, "9.pem"), append(cert, key...))
	if _, err := r.meet(s, layer.TLS(&tls.Config{RootCAs: a.pool(), ServerName: "d.test"})); err != nil {
		t.Errorf("a certificate that was added: %v", err)
	}
	for _, bad := range []string{"", t.TempDir(), filepath.Join(dir, "nothing")} {
		if _, err := certs.NewFiles(bad, "", nil); err == nil {
			t.Errorf("%q has certificates", bad)
		}
	}
}

// TestTLSConfig: ALPN and the key log work as in crypto/tls, and the state is
// found through layers on top.
func TestTLSConfig(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	var keys strings.Builder
	server.NextProtos, client.NextProtos, client.KeyLogWriter = []string{"h2", "echo"}, []string{"echo"}, &keys
	r := newRig(t)
	s, c := &layertest.Ear{}, &layertest.Ear{}
	r.pair(s, []layer.Layer{layer.TLSServer(server), layertest.Plain}, c, []layer.Layer{layer.TLS(client), layertest.Plain})
	r.until("the server", func() bool { return s.Made > 0 })
	for _, e := range []*layertest.Ear{s, c} {
		if st := stateOf(t, e.Tr); st.NegotiatedProtocol != "echo" || !st.HandshakeComplete {
			t.Errorf("state: %+v", st)
		}
	}
	if !strings.Contains(keys.String(), "CLIENT_TRAFFIC_SECRET_0") {
		t.Errorf("key log: %q", keys.String())
	}
}
