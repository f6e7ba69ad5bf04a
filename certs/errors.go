package certs

import (
	"crypto/x509"
	"encoding/pem"
	"strings"

	"github.com/weir-io/weir/internal/textfile"
)

// FileProblem says what is wrong with a file of certificates or keys.
type FileProblem string

// The problems.
const (
	NoCertificate FileProblem = "it holds no certificate in PEM"
	NoKey         FileProblem = "it holds no private key in PEM"
	EncryptedKey  FileProblem = "its private key is encrypted"
	OtherKey      FileProblem = "its private key belongs to none of the certificates"
	Malformed     FileProblem = "it cannot be used" // Err says why
)

// FileError reports a file that Files or AuthorityFile could read but not use. For a
// file that cannot be read, the error is a *fs.PathError.
type FileError struct {
	File    string // the path; for a pair, that of the certificate or of the key
	Problem FileProblem
	Err     error // as crypto/tls or crypto/x509 reported it; nil if they reported none
}

func (e *FileError) Error() string {
	s := e.File + ": " + string(e.Problem)
	if e.Problem == Malformed && e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// ErrFileTooLong is the cause if a file of certificates or keys is longer than 16 MiB;
// it is wrapped in a *fs.PathError.
var ErrFileTooLong = textfile.ErrTooLong

// otherKey occurs in crypto/tls's error for a key that belongs to another certificate.
const otherKey = "does not match public key"

// pairError says why tls.X509KeyPair refused a pair with err.
func pairError(files pair, cert, key []byte, err error) *FileError {
	leaf := findBlock(cert, func(b *pem.Block) bool { return b.Type == "CERTIFICATE" })
	if leaf == nil {
		return &FileError{File: files.cert, Problem: NoCertificate, Err: err}
	}
	if _, bad := x509.ParseCertificate(leaf.Bytes); bad != nil {
		return &FileError{File: files.cert, Problem: Malformed, Err: bad}
	}
	private := findBlock(key, func(b *pem.Block) bool {
		return b.Type == "PRIVATE KEY" || strings.HasSuffix(b.Type, " PRIVATE KEY")
	})
	e := &FileError{File: files.key, Problem: Malformed, Err: err}
	switch {
	case private == nil:
		e.Problem = NoKey
	case private.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(private.Headers["Proc-Type"], "ENCRYPTED"):
		e.Problem = EncryptedKey // RFC 5958, 3, and RFC 1421, 4.6.1.1
	case strings.Contains(err.Error(), otherKey):
		e.Problem = OtherKey // there is no type for it
	}
	return e
}

// authorityError says why a file gave no authorities.
func authorityError(path string, text []byte) *FileError {
	e := &FileError{File: path, Problem: NoCertificate}
	if b := findBlock(text, func(b *pem.Block) bool { return b.Type == "CERTIFICATE" }); b != nil {
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			e.Problem, e.Err = Malformed, err
		}
	}
	return e
}

// findBlock returns the first wanted PEM block, or nil.
func findBlock(text []byte, want func(*pem.Block) bool) *pem.Block {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil || want(b) {
			return b
		}
	}
}
