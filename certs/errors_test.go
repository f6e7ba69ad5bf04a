package certs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/weir-io/weir/certs"
)

// TestFileError: a problem with a file of certificates or keys has a type and names the
// file, even one within a directory.
func TestFileError(t *testing.T) {
	cert, key := pemOf(t, certificate(t, issue{cn: "a.test"}))
	_, other := pemOf(t, certificate(t, issue{cn: "b.test"}))
	sealed := []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	broken := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	for _, c := range []struct {
		name      string
		cert, key []byte
		file      string
		problem   certs.FileProblem
	}{
		{"no certificate", key, key, "x.crt", certs.NoCertificate},
		{"nothing", nil, nil, "x.crt", certs.NoCertificate},
		{"broken", broken, key, "x.crt", certs.Malformed},
		{"no key", cert, cert, "x.key", certs.NoKey},
		{"sealed", cert, sealed, "x.key", certs.EncryptedKey},
		{"another's key", cert, other, "x.key", certs.OtherKey},
	} {
		dir := t.TempDir()
		certFile, keyFile := filepath.Join(dir, "x.crt"), filepath.Join(dir, "x.key")
		if err := errors.Join(os.WriteFile(certFile, c.cert, 0o600), os.WriteFile(keyFile, c.key, 0o600)); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][2]string{{certFile, keyFile}, {dir, ""}} {
			_, err := certs.NewFiles(args[0], args[1], nil)
			var e *certs.FileError
			if !errors.As(err, &e) || e.Problem != c.problem || e.File != filepath.Join(dir, c.file) || e.Err == nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		_, err := certs.NewAuthorityFile(certFile, nil)
		var e *certs.FileError
		if good := c.problem != certs.NoCertificate && c.problem != certs.Malformed; good != (err == nil) ||
			!good && (!errors.As(err, &e) || e.Problem != c.problem || e.File != certFile) {
			t.Errorf("%s, as authorities: %v", c.name, err)
		}
	}
}
