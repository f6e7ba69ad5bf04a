package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Prefix is how the length in front of a frame is written.
type Prefix uint8

// The prefixes. The length counts the body alone.
const (
	Uint8    Prefix = iota + 1 // one byte
	Uint16BE                   // two bytes, the highest first
	Uint16LE                   // two bytes, the lowest first
	Uint32BE                   // four bytes, the highest first
	Uint32LE                   // four bytes, the lowest first
	Uvarint                    // encoding/binary's unsigned varint: 7 bits a byte, the lowest first
)

// String returns the name that errors use for the frame.
func (p Prefix) String() string {
	switch p {
	case Uint8:
		return "frame with an 8-bit length"
	case Uint16BE, Uint16LE:
		return "frame with a 16-bit length"
	case Uint32BE, Uint32LE:
		return "frame with a 32-bit length"
	case Uvarint:
		return "frame with a varint length"
	}
	return fmt.Sprintf("frame with unknown prefix %d", uint8(p))
}

// Prefixed hands each frame, which its length precedes, to f.
func Prefixed(p Prefix, f func(frame []byte) error, opts ...Option) *Decoder {
	return newDecoder(p, f, opts)
}

// A varint that is too long shows it in the byte after its longest form.
func (Prefix) most(limit int) int { return limit + binary.MaxVarintLen64 + 1 }

func (Prefix) last([]byte, int) ([]byte, error) { return nil, errNoLast }

var errNoLast = errors.New("frame: the end of the stream does not end a frame of this format")

func (p Prefix) measure(b []byte, _, limit int) (span, bool, error) {
	var (
		size uint64
		head int
	)
	switch p {
	case Uint8:
		if head = 1; len(b) >= head {
			size = uint64(b[0])
		}
	case Uint16BE:
		if head = 2; len(b) >= head {
			size = uint64(binary.BigEndian.Uint16(b))
		}
	case Uint16LE:
		if head = 2; len(b) >= head {
			size = uint64(binary.LittleEndian.Uint16(b))
		}
	case Uint32BE:
		if head = 4; len(b) >= head {
			size = uint64(binary.BigEndian.Uint32(b))
		}
	case Uint32LE:
		if head = 4; len(b) >= head {
			size = uint64(binary.LittleEndian.Uint32(b))
		}
	case Uvarint:
		size, head = binary.Uvarint(b)
		if head == 0 {
			return span{}, false, nil
		}
		if head < 0 {
			return span{}, false, &SyntaxError{Format: p.String(), Text: "the length does not fit 64 bits"}
		}
	default:
		return span{}, false, &SyntaxError{Format: p.String(), Text: "there is no such prefix"}
	}
	if len(b) < head {
		return span{}, false, nil
	}
	if size > uint64(limit) {
		return span{}, false, &LimitError{Format: p.String(), Size: size, Limit: limit}
	}
	return span{head: head, body: int(size)}, true, nil
}

// AppendPrefixed appends body to dst, preceded by its length. If body is too long for
// the prefix, the error is a *LimitError, and dst is returned as it was.
func AppendPrefixed(dst []byte, p Prefix, body []byte) ([]byte, error) {
	n := uint64(len(body))
	most := uint64(math.MaxInt)
	switch p {
	case Uint8:
		most = math.MaxUint8
	case Uint16BE, Uint16LE:
		most = math.MaxUint16
	case Uint32BE, Uint32LE:
		most = math.MaxUint32
	case Uvarint:
	}
	if n > most {
		return dst, &LimitError{Format: p.String(), Size: n, Limit: int(most)}
	}
	switch p {
	case Uint8:
		dst = append(dst, byte(n))
	case Uint16BE:
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	case Uint16LE:
		dst = binary.LittleEndian.AppendUint16(dst, uint16(n))
	case Uint32BE:
		dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	case Uint32LE:
		dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	case Uvarint:
		dst = binary.AppendUvarint(dst, n)
	default:
		return dst, &SyntaxError{Format: p.String(), Text: "there is no such prefix"}
	}
	return append(dst, body...), nil
}

// Fixed hands frames of size bytes to f. If size is below 1, the first bytes cause a
// *SyntaxError. The limit does not apply.
func Fixed(size int, f func(frame []byte) error, opts ...Option) *Decoder {
	return newDecoder(fixed(size), f, opts)
}

type fixed int

func (n fixed) most(int) int { return int(n) }

func (fixed) last([]byte, int) ([]byte, error) { return nil, errNoLast }

func (n fixed) measure([]byte, int, int) (span, bool, error) {
	if n < 1 {
		return span{}, false, &SyntaxError{Format: "fixed size", Text: fmt.Sprintf("%d bytes are not a frame", int(n))}
	}
	return span{body: int(n)}, true, nil
}
