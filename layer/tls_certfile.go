package layer

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
)

// CertificateFileProblem is what is wrong with a file of certificates or keys.
type CertificateFileProblem string

// The problems.
const (
	NoCertificate CertificateFileProblem = "it holds no certificate in PEM"
	NoKey         CertificateFileProblem = "it holds no private key in PEM"
	EncryptedKey  CertificateFileProblem = "its private key is encrypted"
	OtherKey      CertificateFileProblem = "its private key is not the certificate's"
	Malformed     CertificateFileProblem = "it cannot be used" // Err says why
)

// CertificateFileError is a file that CertificateFiles or AuthorityFile could read
// and not use. One that cannot be read is a *fs.PathError.
type CertificateFileError struct {
	File    string // the path; of a pair, that of the certificate or that of the key
	Problem CertificateFileProblem
	Err     error // as crypto/tls or crypto/x509 reported it; nil where they said nothing
}

func (e *CertificateFileError) Error() string {
	s := e.File + ": " + string(e.Problem)
	if e.Problem == Malformed && e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *CertificateFileError) Unwrap() error { return e.Err }

// pairError says why tls.X509KeyPair refused a pair with err.
func pairError(files certificatePair, cert, key []byte, err error) *CertificateFileError {
	leaf := findBlock(cert, func(b *pem.Block) bool { return b.Type == "CERTIFICATE" })
	if leaf == nil {
		return &CertificateFileError{File: files.cert, Problem: NoCertificate, Err: err}
	}
	if _, bad := x509.ParseCertificate(leaf.Bytes); bad != nil {
		return &CertificateFileError{File: files.cert, Problem: Malformed, Err: bad}
	}
	private := findBlock(key, func(b *pem.Block) bool {
		return b.Type == "PRIVATE KEY" || strings.HasSuffix(b.Type, " PRIVATE KEY")
	})
	e := &CertificateFileError{File: files.key, Problem: Malformed, Err: err}
	switch {
	case private == nil:
		e.Problem = NoKey
	case private.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(private.Headers["Proc-Type"], "ENCRYPTED"):
		e.Problem = EncryptedKey // RFC 5958, 3, and RFC 1421, 4.6.1.1
	case strings.Contains(err.Error(), "does not match public key"):
		e.Problem = OtherKey // crypto/tls has no type for it
	}
	return e
}

// authorityError says why a file gave no authorities.
func authorityError(path string, text []byte) *CertificateFileError {
	e := &CertificateFileError{File: path, Problem: NoCertificate}
	if b := findBlock(text, func(b *pem.Block) bool { return b.Type == "CERTIFICATE" }); b != nil {
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			e.Problem, e.Err = Malformed, err
		}
	}
	return e
}

// findBlock is the first block of PEM that is one of those wanted, or nil.
func findBlock(text []byte, want func(*pem.Block) bool) *pem.Block {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil || want(b) {
			return b
		}
	}
}
