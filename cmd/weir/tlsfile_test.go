package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTLSFiles: an unusable file of certificates or keys is named with its layer
// and its option, and with what to do.
func TestTLSFiles(t *testing.T) {
	a := newAuthority(t)
	good := a.issue("server", time.Now().Add(time.Hour))
	a.issue("other", time.Now().Add(time.Hour))
	a.write("sealed.key", "ENCRYPTED PRIVATE KEY", []byte("anything"))
	old := "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n"
	if err := os.WriteFile(filepath.Join(a.dir, "old.key"), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	a.write("broken.pem", "CERTIFICATE", []byte("no DER"))
	if err := os.Mkdir(filepath.Join(a.dir, "many"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.write("many/lone.pem", "CERTIFICATE", a.cert.Raw)
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ end, problem, next string }{
		{"8080+tls,cert=nope.pem", "8080+tls: layer tls: cert=nope.pem: no such file", "is looked for in " + wd},
		{"8080+tls,cert=DIR/nope.pem", "cert=DIR/nope.pem: no such file", "ls -l DIR shows"},
		{"8080+tls,cert=DIR/server.pem,key=nope", "layer tls: key=nope: no such file", "is looked for in " + wd},
		{"8080+tls,cert=DIR/server.pem", "cert=DIR/server.pem: it holds no private key in PEM", "Add ,key=FILE"},
		{"8080+tls,cert=DIR/server.pem,key=DIR/server.pem", "key=DIR/server.pem: it holds no private key in PEM", "begins with -----BEGIN PRIVATE KEY-----"},
		{"8080+tls,cert=DIR/server.pem,key=DIR/sealed.key", "key=DIR/sealed.key: its private key is encrypted", "openssl pkey -in DIR/sealed.key -out plain.key"},
		{"8080+tls,cert=DIR/server.pem,key=DIR/old.key", "key=DIR/old.key: its private key is encrypted", "openssl pkey -in DIR/old.key -out plain.key"},
		{"8080+tls,cert=DIR/server.pem,key=DIR/other.key", "key=DIR/other.key: its private key belongs to none of the certificates", "openssl x509 -noout -pubkey"},
		{"8080+tls,cert=DIR/server.key,key=DIR/server.key", "cert=DIR/server.key: it holds no certificate in PEM", "-----BEGIN CERTIFICATE-----"},
		{"8080+tls,cert=DIR/broken.pem,key=DIR/server.key", "cert=DIR/broken.pem: it cannot be used: x509: malformed certificate", "openssl x509 -noout -text -in DIR/broken.pem"},
		{"8080+tls,cert=DIR/many", "cert=DIR/many: DIR/many/lone.pem: it holds no private key in PEM", "Put the certificate's key beside it: DIR/many/lone.key"},
		{"8080+tls,client-ca=nope" + good, "layer tls: client-ca=nope: no such file", "is looked for in " + wd},
		{"8080+tls,client-ca=DIR/server.key" + good, "client-ca=DIR/server.key: it holds no certificate in PEM", "-----BEGIN CERTIFICATE-----"},
		{"8080+tls,client-ca=DIR/broken.pem" + good, "client-ca=DIR/broken.pem: it cannot be used: x509: malformed certificate", "-in DIR/broken.pem"},
		{"8080+tls,keylog=DIR/none/log" + good, "keylog=DIR/none/log: no such file", "ls -l DIR/none shows"},
		{"localhost:1+tls,ca=nope", "localhost:1+tls: layer tls: ca=nope: no such file", "is looked for in " + wd},
		{"/run/x+tls", "/run/x+tls: layer tls: nothing says whose certificate", "add ,name=NAME"},
	} {
		in := func(s string) string { return strings.ReplaceAll(s, "DIR", a.dir) }
		args := []string{"8081", in(c.end)}
		if strings.HasPrefix(c.end, "8080") {
			args = []string{in(c.end), "localhost:1"}
		}
		p := start(t, args...)
		if code := p.end(); code != exitFailure || !strings.Contains(p.said(), in(c.problem)) || !strings.Contains(p.said(), in(c.next)) {
			t.Errorf("%s: code %d; want %s and %s:\n%s", c.end, code, in(c.problem), in(c.next), p.said())
		}
	}
	p := start(t, "--log", "json", "8080+tls,cert=nope.pem", "localhost:1")
	if code := p.end(); code != exitFailure {
		t.Errorf("code %d", code)
	}
	wantFields(t, p.said(), map[string]string{"endpoint": "8080+tls", "layer": "tls", "option": "cert", "value": "nope.pem", "reason": "no such file"})
}

// wantFields looks for fields in a line of JSON.
func wantFields(t *testing.T, line string, want map[string]string) {
	t.Helper()
	var ev map[string]any
	if err := json.Unmarshal([]byte(line), &ev); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	for k, v := range want {
		if ev[k] != v {
			t.Errorf("%s is %v, want %q: %s", k, ev[k], v, line)
		}
	}
}

// TestTLSProtocols: if client and server have no protocol in common (ALPN), each
// says so once, with what to do. In JSON the peer, the stage, the layer and the
// reason of a failed handshake are fields, like those of a failed connect.
func TestTLSProtocols(t *testing.T) {
	a := newAuthority(t)
	good := a.issue("server", time.Now().Add(time.Hour))
	upper := server(t, answer(strings.ToUpper))
	srv := start(t, "0+tls,alpn=h2"+good, upper)
	p := start(t, "-", srv.listening()+"+tls,alpn=chat,ca="+a.ca())
	if code := p.end(); code != exitFailure {
		t.Errorf("code %d", code)
	}
	p.line("the peer sent the alert no application protocol", 1)
	p.line("It speaks none of the protocols of ,alpn=", 1)
	srv.line(`: handshake: tls: no application protocol in common (ALPN): the client offers ["chat"]`, 1)
	srv.line("It offers none of the protocols of ,alpn=", 1)

	srv = start(t, "--log", "json", "0+tls,alpn=h2"+good, upper)
	at := srv.listeningJSON()
	conn := dial(t, at)
	if err := write(conn, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	wantFields(t, srv.line("no connection with", 1), map[string]string{
		"level": "WARN", "peer": conn.LocalAddr().String(), "stage": "handshake", "layer": "tls",
		"reason": "the other side does not speak TLS",
	})
	p = start(t, "--log", "json", "-", at+"+tls,alpn=chat,ca="+a.ca())
	if code := p.end(); code != exitFailure {
		t.Errorf("code %d", code)
	}
	wantFields(t, p.line("cannot connect", 1), map[string]string{
		"level": "ERROR", "endpoint": at + "+tls", "layer": "tls",
		"reason": "the peer sent the alert no application protocol",
	})
}
