// Package sealed is TLS reduced to its work: records as in TLS 1.3, AES-128-GCM
// with a key that everyone knows, and no handshake. The floor of the relays that
// terminate TLS speaks it.
package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"io"
)

// Sizes of a record, in bytes. All records are full.
const (
	Header = 5
	Piece  = 16 << 10
	Tag    = 16
	Record = Header + Piece + Tag
)

// Sealer seals or opens records, in their order.
type Sealer struct {
	aead  cipher.AEAD
	nonce [12]byte
	seq   uint64
}

// New makes a Sealer that begins with the first record.
func New() (*Sealer, error) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &Sealer{aead: aead}, err
}

func (s *Sealer) next() []byte {
	binary.BigEndian.PutUint64(s.nonce[4:], s.seq)
	s.seq++
	return s.nonce[:]
}

// Open opens a record in place and returns the piece in it.
func (s *Sealer) Open(record []byte) ([]byte, error) {
	head, body := record[:Header], record[Header:]
	return s.aead.Open(body[:0], s.next(), body, head)
}

// Writer seals what it is given and makes one call below for each record, as crypto/tls does.
type Writer struct {
	s   *Sealer
	to  io.Writer
	buf []byte
}

// NewWriter makes a Writer.
func NewWriter(to io.Writer) (*Writer, error) {
	s, err := New()
	return &Writer{s: s, to: to, buf: make([]byte, Header, Record)}, err
}

// Write takes whole pieces.
func (w *Writer) Write(p []byte) (int, error) {
	n := 0
	for ; len(p)-n >= Piece; n += Piece {
		head := w.buf[:Header]
		if _, err := w.to.Write(w.s.aead.Seal(head, w.s.next(), p[n:n+Piece], head)); err != nil {
			return n, err
		}
	}
	return n, nil
}
