// Package textfile reads text of a bounded length as editors write it, including
// byte-order marks and UTF-16.
package textfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"unicode/utf8"
)

// ErrNotText is the cause if a file that should be text holds bytes that no text has.
var ErrNotText = errors.New("it is not text: it holds NUL bytes")

// ErrTooLong is the cause if a file is longer than its purpose allows.
var ErrTooLong = errors.New("it is too long for what it is to hold")

// Read is os.ReadFile for a text of at most this many bytes, decoded by Decode. Errors
// are *fs.PathErrors: ErrTooLong, ErrNotText, and those of os.
func Read(path string, most int) ([]byte, error) {
	b, err := ReadUpTo(path, most)
	if err == nil {
		if b, err = Decode(b); err != nil {
			err = &fs.PathError{Op: "read", Path: path, Err: err}
		}
	}
	return b, err
}

// ReadUpTo reads a file, device or pipe of at most this many bytes.
func ReadUpTo(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(b) > most {
		err = &fs.PathError{Op: "read", Path: path, Err: ErrTooLong}
	}
	return b, err
}

// ByteOrderMark is U+FEFF in UTF-8.
const ByteOrderMark = "\ufeff"

// Decode returns the text of a file as editors write it: a leading byte-order mark is
// left out, and UTF-16 (as Windows shells write it), with a mark or beginning with an
// ASCII character, becomes UTF-8. The error is ErrNotText. Everything else, including
// line endings, stays as it is; the result may be b itself.
func Decode(b []byte) ([]byte, error) {
	if b16, order := utf16Of(b); order != nil {
		return fromUTF16(b16, order)
	}
	b = bytes.TrimPrefix(b, []byte(ByteOrderMark))
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, ErrNotText
	}
	return b, nil
}

// utf16Of finds the byte order of UTF-16; nil if b is not UTF-16.
func utf16Of(b []byte) ([]byte, binary.ByteOrder) {
	switch {
	case len(b) < 2 || len(b)%2 != 0:
		return nil, nil
	case b[0] == 0xff && b[1] == 0xfe:
		return b[2:], binary.LittleEndian
	case b[0] == 0xfe && b[1] == 0xff:
		return b[2:], binary.BigEndian
	case b[0] != 0 && b[0] < utf8.RuneSelf && b[1] == 0:
		return b, binary.LittleEndian
	case b[0] == 0 && b[1] != 0 && b[1] < utf8.RuneSelf:
		return b, binary.BigEndian
	}
	return nil, nil
}

func fromUTF16(b []byte, order binary.ByteOrder) ([]byte, error) {
	var out []byte
	for len(b) > 0 {
		r := rune(order.Uint16(b))
		b = b[2:]
		if r >= 0xd800 && r < 0xe000 { // a pair of surrogates, the high one first
			low := rune(0)
			if len(b) > 0 {
				low = rune(order.Uint16(b))
			}
			if r >= 0xdc00 || low < 0xdc00 || low > 0xdfff {
				return nil, ErrNotText
			}
			b = b[2:]
			r = 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
		}
		if r == 0 {
			return nil, ErrNotText
		}
		out = utf8.AppendRune(out, r)
	}
	return out, nil
}
