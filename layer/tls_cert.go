package layer

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

// CertificateFiles are certificates with their keys, read from files in PEM and
// read again when the files change: each handshake looks at their times, sizes
// and identities, through symbolic links, so that a directory exchanged by its
// link is noticed, too. Nothing runs in between. What cannot be read, or a key
// that does not fit its certificate, as in the middle of an update, leaves those
// in place that were there.
//
// All methods may be called from any goroutine.
type CertificateFiles struct {
	pairs []certificatePair
	dir   string // the files are all pairs in it; "" if they are named
	fail  func(error)

	mu     sync.Mutex
	seen   string // the state of the files, as last read
	loaded []*tls.Certificate
	sum    [sha256.Size]byte // of the content
}

type certificatePair struct{ cert, key string }

// NewCertificateFiles reads the certificate chain in cert, and its key in key;
// key is "" if it is in the same file. If cert is a directory it holds any number
// of them, NAME.crt or NAME.pem with NAME.key or with the key inside, and key
// must be "". failed, which may be nil, hears of each reload that fails, once per
// change. Of a file that was read and is of no use the error is a
// *CertificateFileError.
func NewCertificateFiles(cert, key string, failed func(error)) (*CertificateFiles, error) {
	f := &CertificateFiles{fail: failed}
	info, err := os.Stat(cert)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir() && key != "":
		return nil, fmt.Errorf("%s is a directory: its keys stand beside its certificates", cert)
	case info.IsDir():
		f.dir = cert
	case key == "":
		f.pairs = []certificatePair{{cert, cert}}
	default:
		f.pairs = []certificatePair{{cert, key}}
	}
	state, err := f.state()
	if err != nil {
		return nil, err
	}
	if f.loaded, f.sum, err = f.load(); err != nil {
		return nil, err
	}
	f.seen = state
	return f, nil
}

// GetCertificate is for tls.Config: the first certificate that suits what the
// client asks for, or else the first.
func (f *CertificateFiles) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	all := f.current()
	for _, c := range all {
		if hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return all[0], nil
}

// GetClientCertificate is for tls.Config: the first certificate that the server
// can use, or none.
func (f *CertificateFiles) GetClientCertificate(ask *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	all := f.current()
	for _, c := range all {
		if ask.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	// The server names authorities that have not signed it. It may take it all
	// the same, and says why if not: no certificate at all would say less.
	return all[0], nil
}

// current reads the files again if they changed.
func (f *CertificateFiles) current() []*tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	state, err := f.state()
	if err != nil {
		state = err.Error()
	}
	if state == f.seen {
		return f.loaded
	}
	f.seen = state
	var loaded []*tls.Certificate
	var sum [sha256.Size]byte
	if err == nil {
		loaded, sum, err = f.load()
	}
	switch {
	case err != nil:
		if f.fail != nil {
			f.fail(err)
		}
	case sum != f.sum:
		f.loaded, f.sum = loaded, sum
	}
	return f.loaded
}

// files lists the pairs there are now.
func (f *CertificateFiles) files() ([]certificatePair, error) {
	if f.dir == "" {
		return f.pairs, nil
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var pairs []certificatePair
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if ext != ".pem" && ext != ".crt" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		p := certificatePair{cert: filepath.Join(f.dir, e.Name())}
		p.key = strings.TrimSuffix(p.cert, ext) + ".key"
		if _, err := os.Stat(p.key); errors.Is(err, fs.ErrNotExist) {
			p.key = p.cert
		}
		pairs = append(pairs, p)
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i].cert < pairs[j].cert })
	if len(pairs) == 0 {
		return nil, fmt.Errorf("%s holds no NAME.crt or NAME.pem", f.dir)
	}
	return pairs, nil
}

// state says, without reading them, what state the files are in.
func (f *CertificateFiles) state() (string, error) {
	pairs, err := f.files()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, p := range pairs {
		for _, path := range []string{p.cert, p.key} {
			s, err := fileState(path)
			if err != nil {
				return "", err
			}
			b.WriteString(path + " " + s + "\n")
		}
	}
	return b.String(), nil
}

// fileState says what state a file is in. Its directory's real path tells files
// apart that were exchanged whole and agree in all else.
func fileState(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d %s", real, info.Size(), info.ModTime().UnixNano(), fileIdentity(info)), nil
}

// load reads all of them, or fails.
func (f *CertificateFiles) load() (loaded []*tls.Certificate, sum [sha256.Size]byte, err error) {
	pairs, err := f.files()
	if err != nil {
		return nil, sum, err
	}
	h := sha256.New()
	for _, p := range pairs {
		cert, err := os.ReadFile(p.cert)
		if err != nil {
			return nil, sum, err
		}
		key := cert
		if p.key != p.cert {
			if key, err = os.ReadFile(p.key); err != nil {
				return nil, sum, err
			}
		}
		c, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, sum, pairError(p, cert, key, err)
		}
		fmt.Fprintf(h, "%d %d ", len(cert), len(key))
		h.Write(cert)
		h.Write(key)
		loaded = append(loaded, &c)
	}
	h.Sum(sum[:0])
	return loaded, sum, nil
}

// AuthorityFile is a file of certificates in PEM that are trusted, read again
// when it changes, as CertificateFiles are. All methods may be called from any
// goroutine.
type AuthorityFile struct {
	path string
	fail func(error)

	mu   sync.Mutex
	seen string
	text []byte
	pool *x509.CertPool
}

// NewAuthorityFile reads path. failed and the error are as for NewCertificateFiles.
func NewAuthorityFile(path string, failed func(error)) (*AuthorityFile, error) {
	a := &AuthorityFile{path: path, fail: failed}
	state, err := fileState(path)
	if err != nil {
		return nil, err
	}
	if err := a.load(); err != nil {
		return nil, err
	}
	a.seen = state
	return a, nil
}

func (a *AuthorityFile) load() error {
	text, err := os.ReadFile(a.path)
	if err != nil {
		return err
	}
	if a.pool != nil && bytes.Equal(text, a.text) {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return authorityError(a.path, text)
	}
	a.text, a.pool = text, pool
	return nil
}

// Pool is what the file holds now: the same pool as long as its content is the
// same.
func (a *AuthorityFile) Pool() *x509.CertPool {
	a.mu.Lock()
	defer a.mu.Unlock()
	state, err := fileState(a.path)
	if err != nil {
		state = err.Error()
	}
	if state != a.seen {
		a.seen = state
		if err == nil {
			err = a.load()
		}
		if err != nil && a.fail != nil {
			a.fail(err)
		}
	}
	return a.pool
}

// WithClientAuthorities makes a server verify its clients' certificates, which
// are required, with the authorities in a, as they are at each handshake. A
// ticket of a session whose certificate they do not vouch for any more resumes
// nothing.
func WithClientAuthorities(a *AuthorityFile) TLSOption {
	return func(s *tlsShared) { s.clientCAs = a }
}

// followAuthorities makes the configuration follow a file of authorities.
func (s *tlsShared) followAuthorities() {
	if s.clientCAs == nil {
		return
	}
	s.cfg.ClientCAs = s.clientCAs.Pool()
	s.cfg.ClientAuth = tls.RequireAndVerifyClientCert
	var mu sync.Mutex
	latest := s.cfg
	s.cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool := s.clientCAs.Pool()
		mu.Lock()
		defer mu.Unlock()
		if pool != latest.ClientCAs {
			latest = s.cfg.Clone()
			latest.GetConfigForClient = nil
			latest.ClientCAs = pool
			if s.marks {
				markTickets(latest) // sealed by its own keys, so that old ones are refused
			}
		}
		return latest, nil
	}
}

// NotAfter is when the first of the certificates ends.
func (f *CertificateFiles) NotAfter() time.Time {
	var first time.Time
	for _, c := range f.current() {
		if first.IsZero() || c.Leaf.NotAfter.Before(first) {
			first = c.Leaf.NotAfter
		}
	}
	return first
}
