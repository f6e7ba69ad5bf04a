package layer_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/weir-io/weir/layer"
)

// TestCertificateFileError: what is wrong with a file of certificates or keys has
// a type, and names the file that it is about, of a directory too.
func TestCertificateFileError(t *testing.T) {
	a := newAuthority(t)
	cert, key := pemOf(t, a.issue(issue{cn: "a.test"}))
	_, other := pemOf(t, a.issue(issue{cn: "b.test"}))
	sealed := []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	broken := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	for _, c := range []struct {
		name      string
		cert, key []byte
		file      string
		problem   layer.CertificateFileProblem
	}{
		{"no certificate", key, key, "x.crt", layer.NoCertificate},
		{"nothing", nil, nil, "x.crt", layer.NoCertificate},
		{"broken", broken, key, "x.crt", layer.Malformed},
		{"no key", cert, cert, "x.key", layer.NoKey},
		{"sealed", cert, sealed, "x.key", layer.EncryptedKey},
		{"another's key", cert, other, "x.key", layer.OtherKey},
	} {
		dir := t.TempDir()
		certFile, keyFile := filepath.Join(dir, "x.crt"), filepath.Join(dir, "x.key")
		if err := errors.Join(os.WriteFile(certFile, c.cert, 0o600), os.WriteFile(keyFile, c.key, 0o600)); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][2]string{{certFile, keyFile}, {dir, ""}} {
			_, err := layer.NewCertificateFiles(args[0], args[1], nil)
			var e *layer.CertificateFileError
			if !errors.As(err, &e) || e.Problem != c.problem || e.File != filepath.Join(dir, c.file) || e.Err == nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		_, err := layer.NewAuthorityFile(certFile, nil)
		var e *layer.CertificateFileError
		if good := c.problem != layer.NoCertificate && c.problem != layer.Malformed; good != (err == nil) ||
			!good && (!errors.As(err, &e) || e.Problem != c.problem || e.File != certFile) {
			t.Errorf("%s, as authorities: %v", c.name, err)
		}
	}
}
