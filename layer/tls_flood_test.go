package layer_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// sealer makes records of TLS_AES_128_GCM_SHA256 by hand, like a peer that does
// what crypto/tls never would (RFC 8446, 5.2 and 7.3).
type sealer struct {
	t      *testing.T
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func (s *sealer) expand(label string, n int) []byte {
	s.t.Helper()
	label = "tls13 " + label
	info := string([]byte{0, byte(n), byte(len(label))}) + label + "\x00"
	b, err := hkdf.Expand(sha256.New, s.secret, info, n)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *sealer) use(secret []byte) {
	s.t.Helper()
	s.secret, s.seq = secret, 0
	block, err := aes.NewCipher(s.expand("key", 16))
	if err != nil {
		s.t.Fatal(err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		s.t.Fatal(err)
	}
	s.iv = s.expand("iv", 12)
}

func (s *sealer) record(kind byte, content ...byte) []byte {
	nonce := bytes.Clone(s.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, s.seq) {
		nonce[4+i] ^= b
	}
	s.seq++
	head := []byte{23, 3, 3, 0, byte(len(content) + 1 + s.aead.Overhead())}
	return s.aead.Seal(head, nonce, append(content, kind), head)
}

// newKeys returns a KeyUpdate that wants an answer, and switches to the next
// keys.
func (s *sealer) newKeys() []byte {
	r := s.record(22, 24, 0, 0, 1, 1)
	s.use(s.expand("traffic upd", 32))
	return r
}

// TestTLSKeyUpdateFlood: a peer that asks for new keys repeatedly, and does not
// read the answers, makes us hold a bounded number of them (G3); once it reads,
// all its other data arrive.
func TestTLSKeyUpdateFlood(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	var log bytes.Buffer
	client.KeyLogWriter = &log
	r := newRig(t)
	e := &layertest.Ear{}
	path := filepath.Join(t.TempDir(), "s")
	if _, err := r.loop.Listen("unix", path, layer.Server(func(weir.Transport) weir.Protocol { return e }, layer.TLSServer(server))); err != nil {
		t.Skip(err)
	}
	raw, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	_ = raw.SetDeadline(time.Now().Add(2 * time.Minute))
	conn := tls.Client(raw, client)
	r.peer(conn.Handshake)
	if conn.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("another cipher suite is preferred here")
	}
	_, rest, ok := strings.Cut(log.String(), "CLIENT_TRAFFIC_SECRET_0 ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 {
		t.Fatalf("the key log says %q", log.String())
	}
	secret, err := hex.DecodeString(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	s := &sealer{t: t}
	s.use(secret)
	// crypto/tls gives up after 16 such messages in a row; data in between
	// count as progress. The total is more than the system's buffers take while
	// weir reads nothing.
	const groups, inGroup = 6000, 8
	var flood []byte
	for range groups {
		for range inGroup {
			flood = append(flood, s.newKeys()...)
		}
		flood = append(flood, s.record(23, 'x')...)
	}
	r.until("the server", func() bool { return e.Made > 0 })
	u, _ := weir.As[interface{ Unwrap() weir.Transport }](e.Tr)
	below := u.Unwrap()
	sent := make(chan error, 1)
	go func() {
		_, err := raw.Write(flood)
		sent <- err
	}()
	most, quiet, got := 0, 0, 0
	r.until("a peer that waits", func() bool {
		most = max(most, below.Buffered())
		if quiet++; len(e.Got) != got || below.Buffered() == 0 {
			quiet, got = 0, len(e.Got)
		}
		return quiet > 20 || e.Over()
	})
	select {
	case err := <-sent:
		t.Fatalf("it said everything and read nothing: %v; %d bytes are held", err, most)
	default:
	}
	// The high mark, the answers to what was read at once, and what was in
	// progress.
	if limit := 64<<10 + 64<<10; most > limit || e.Over() {
		t.Errorf("%d bytes of answers are held, want at most %d; lost with %v", most, limit, e.Err)
	}
	go func() { _, _ = io.Copy(io.Discard, raw) }()
	r.until("everything", func() bool { return len(e.Got) == groups || e.Over() })
	if len(e.Got) != groups {
		t.Errorf("%d bytes arrived of %d; lost with %v", len(e.Got), groups, e.Err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	e.Tr.Abort()
	r.until("the end", e.Over)
}
