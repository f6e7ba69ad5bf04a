package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weir-io/weir/internal/textfile"
)

// fileMost is how many bytes a file of certificates or keys may have.
const fileMost = 16 << 20

// Files are certificates with their keys, read from files in PEM and read again when the files
// change: each handshake looks at their times, sizes and identities, through symbolic links, so
// that replacing a linked directory is noticed too. Nothing runs in between. If a file cannot be
// read, or a key does not fit its certificate, as in the middle of an update, the previous
// certificates stay in place.
//
// All methods may be called from any goroutine.
type Files struct {
	pairs []pair
	dir   string // the files are all pairs in it; "" if they are named
	fail  func(error)

	mu      sync.Mutex
	seen    string // the state of the files, as last read
	scratch []byte // for the next state: it is made for each handshake
	loaded  []*tls.Certificate
	sum     [sha256.Size]byte // of the content
}

type pair struct{ cert, key string }

// NewFiles reads the certificate chain in cert, and its key in key; key is "" if it is
// in the same file. If cert is a directory, it holds any number of pairs, NAME.crt or
// NAME.pem with NAME.key or with the key inside, and key must be ""; a certbot
// directory holds fullchain.pem with privkey.pem, and so may directories in it. The
// key's certificate need not come first. failed, which may be nil, is called for each
// reload that fails, once per change. The error for a file that can be read but not
// used is a *FileError.
func NewFiles(cert, key string, failed func(error)) (*Files, error) {
	f := &Files{fail: failed}
	info, err := os.Stat(cert)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir() && key != "":
		return nil, fmt.Errorf("%s is a directory: its keys stand beside its certificates", cert)
	case info.IsDir():
		f.dir = cert
	case key == "":
		f.pairs = []pair{{cert, cert}}
	default:
		f.pairs = []pair{{cert, key}}
	}
	state, err := f.state()
	if err != nil {
		return nil, err
	}
	if f.loaded, f.sum, err = f.load(); err != nil {
		return nil, err
	}
	f.seen = string(state)
	return f, nil
}

// GetCertificate is for tls.Config. It returns the first certificate that suits what
// the client asks for, or else the first of all.
func (f *Files) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	all := f.current()
	for _, c := range all {
		if hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return all[0], nil
}

// GetClientCertificate is for tls.Config. It returns the first certificate that the
// server accepts, or else the first of all.
func (f *Files) GetClientCertificate(ask *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	all := f.current()
	for _, c := range all {
		if ask.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	// The server names authorities that did not sign this certificate. It may accept it
	// all the same, and if not says why: sending no certificate would tell us less.
	return all[0], nil
}

// current reads the files again if they changed.
func (f *Files) current() []*tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	state, err := f.state()
	if err != nil {
		state = []byte(err.Error())
	}
	if string(state) == f.seen {
		return f.loaded
	}
	f.seen = string(state)
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

// files lists the pairs that exist now.
func (f *Files) files() ([]pair, error) {
	if f.dir == "" {
		return f.pairs, nil
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	if p, ok := certbotPair(f.dir); ok {
		return []pair{p}, nil
	}
	// In a secret mounted by Kubernetes, an authority's certificate may lie next to the
	// pair.
	if p := (pair{filepath.Join(f.dir, "tls.crt"), filepath.Join(f.dir, "tls.key")}); isFile(p.cert) && isFile(p.key) {
		return []pair{p}, nil
	}
	var pairs []pair
	for _, e := range entries {
		if p, ok := certbotPair(filepath.Join(f.dir, e.Name())); ok {
			pairs = append(pairs, p)
			continue
		}
		ext := filepath.Ext(e.Name())
		if ext != ".pem" && ext != ".crt" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		p := pair{cert: filepath.Join(f.dir, e.Name())}
		p.key = strings.TrimSuffix(p.cert, ext) + ".key"
		if _, err := os.Stat(p.key); errors.Is(err, fs.ErrNotExist) {
			p.key = p.cert
		}
		pairs = append(pairs, p)
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i].cert < pairs[j].cert })
	if len(pairs) == 0 {
		return nil, fmt.Errorf("%s holds no NAME.crt or NAME.pem, and no directory of certbot's", f.dir)
	}
	return pairs, nil
}

// certbotPair is the pair in a certbot directory, such as /etc/letsencrypt/live/NAME,
// where cert.pem and chain.pem are parts of it.
func certbotPair(dir string) (pair, bool) {
	p := pair{filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")}
	return p, isFile(p.cert) && isFile(p.key)
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// state describes the state of the files without reading them.
func (f *Files) state() ([]byte, error) {
	pairs, err := f.files()
	if err != nil {
		return nil, err
	}
	b := f.scratch[:0]
	for _, p := range pairs {
		if b, err = appendState(b, p.cert); err != nil {
			return nil, err
		}
		if p.key == p.cert {
			continue
		}
		if b, err = appendState(b, p.key); err != nil {
			return nil, err
		}
	}
	f.scratch = b
	return b, nil
}

// appendState appends what describes the state of a file.
func appendState(b []byte, path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	b = append(append(b, path...), ' ')
	b = append(strconv.AppendInt(b, info.Size(), 10), ' ')
	b = append(strconv.AppendInt(b, info.ModTime().UnixNano(), 10), ' ')
	b, err = appendIdentity(b, path, info)
	return append(b, '\n'), err
}

// load reads all of them, or fails.
func (f *Files) load() (loaded []*tls.Certificate, sum [sha256.Size]byte, err error) {
	pairs, err := f.files()
	if err != nil {
		return nil, sum, err
	}
	h := sha256.New()
	for _, p := range pairs {
		cert, err := textfile.ReadUpTo(p.cert, fileMost)
		if err != nil {
			return nil, sum, err
		}
		cert = pemText(cert)
		key := cert
		if p.key != p.cert {
			if key, err = textfile.ReadUpTo(p.key, fileMost); err != nil {
				return nil, sum, err
			}
			key = pemText(key)
		}
		c, err := keyPair(cert, key)
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

// keyPair is tls.X509KeyPair for a chain in any order: it puts the key's certificate
// first, and after each certificate its issuer's.
func keyPair(cert, key []byte) (tls.Certificate, error) {
	c, err := tls.X509KeyPair(cert, key)
	if err == nil || !strings.Contains(err.Error(), otherKey) {
		return c, err
	}
	var blocks []*pem.Block
	for rest := cert; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "CERTIFICATE" {
			blocks = append(blocks, b)
		}
	}
	for i := 1; i < len(blocks); i++ {
		leaf := pem.EncodeToMemory(blocks[i])
		found, other := tls.X509KeyPair(leaf, key)
		if other != nil {
			continue
		}
		found.Certificate = chainOf(found.Leaf, slices.Delete(slices.Clone(blocks), i, i+1))
		return found, nil
	}
	return c, err
}

// chainOf puts the other certificates after the leaf, each after the one that it has
// issued, and those that fit nowhere last.
func chainOf(leaf *x509.Certificate, others []*pem.Block) [][]byte {
	chain := [][]byte{leaf.Raw}
	for last := leaf; last != nil && len(others) > 0; {
		i := slices.IndexFunc(others, func(b *pem.Block) bool {
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil || !bytes.Equal(c.RawSubject, last.RawIssuer) {
				return false
			}
			last = c
			return true
		})
		if i < 0 {
			break
		}
		chain = append(chain, others[i].Bytes)
		others = slices.Delete(others, i, i+1)
	}
	for _, b := range others {
		chain = append(chain, b.Bytes)
	}
	return chain
}

// AuthorityFile is a PEM file of trusted certificates, read again when it changes, as
// Files are. All methods may be called from any goroutine.
type AuthorityFile struct {
	path string
	fail func(error)

	mu      sync.Mutex
	seen    string
	scratch []byte // as in Files
	text    []byte
	pool    *x509.CertPool
}

// NewAuthorityFile reads path. failed and the error are as for NewFiles.
func NewAuthorityFile(path string, failed func(error)) (*AuthorityFile, error) {
	a := &AuthorityFile{path: path, fail: failed}
	state, err := appendState(nil, path)
	if err != nil {
		return nil, err
	}
	if err := a.load(); err != nil {
		return nil, err
	}
	a.seen = string(state)
	return a, nil
}

func (a *AuthorityFile) load() error {
	text, err := textfile.ReadUpTo(a.path, fileMost)
	if err != nil {
		return err
	}
	text = pemText(text)
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
	state, err := appendState(a.scratch[:0], a.path)
	if err != nil {
		state = []byte(err.Error())
	}
	a.scratch = state
	if string(state) != a.seen {
		a.seen = string(state)
		if err == nil {
			err = a.load()
		}
		if err != nil && a.fail != nil {
			a.fail(err)
		}
	}
	return a.pool
}

// NotAfter is when the first of the certificates expires.
func (f *Files) NotAfter() time.Time {
	var first time.Time
	for _, c := range f.current() {
		if first.IsZero() || c.Leaf.NotAfter.Before(first) {
			first = c.Leaf.NotAfter
		}
	}
	return first
}

// pemText is the text of a PEM file. Byte order marks may appear in the middle, where
// files were concatenated, and lines may end with CR alone. Data that is not text holds
// no PEM.
func pemText(b []byte) []byte {
	text, err := textfile.Decode(b)
	if err != nil {
		return b
	}
	text = bytes.ReplaceAll(text, []byte(textfile.ByteOrderMark), nil)
	if bytes.IndexByte(text, '\n') < 0 {
		text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
	}
	return text
}
