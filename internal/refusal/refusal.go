// Package refusal takes the beginning of the body of an HTTP response that refuses a
// request, for an error message that quotes it. What it takes depends on the bytes of
// the stream alone, and not on the pieces in which they come.
package refusal

import (
	"strconv"
	"strings"
	"time"
)

const (
	// Shown is how much of a body is taken, in bytes.
	Shown = 256
	// Wait is how long to wait for a body after its head.
	Wait = time.Second
)

// Body is a body that is being taken. The zero Body is complete and empty.
type Body struct {
	part part
	left uint64 // bytes still to come, of the body or of a chunk
	line []byte // the line of a chunk's size
	text []byte
}

// part is what comes next.
type part uint8

const (
	partNone    part = iota // the body is complete
	partContent             // bytes of a body that is not chunked
	partSize                // the line of a chunk's size
	partChunk               // bytes of a chunk
	partBreak               // the line break after a chunk
)

// longestSize is how long the line of a chunk's size may be, in bytes.
const longestSize = 64

// Of returns the body of a response with that status and those fields, whose names are
// in lower case. A body that is not text, or is compressed, is complete at once and
// empty.
func Of(status int, fields [][2]string) *Body {
	b := &Body{part: partContent, left: Shown}
	if status == 204 || status == 304 {
		return &Body{}
	}
	for _, f := range fields {
		value := strings.ToLower(f[1])
		switch f[0] {
		case "content-type":
			if !strings.HasPrefix(value, "text/") && !strings.Contains(value, "json") && !strings.Contains(value, "xml") && value != "" {
				return &Body{}
			}
		case "content-encoding":
			if value != "identity" {
				return &Body{}
			}
		case "transfer-encoding":
			if value != "chunked" {
				return &Body{}
			}
			b.part, b.left = partSize, 0
		case "content-length":
			if n, err := strconv.ParseUint(value, 10, 63); err == nil && b.part == partContent {
				b.left = min(b.left, n)
			}
		}
	}
	if b.part == partContent && b.left == 0 {
		b.part = partNone
	}
	return b
}

// Whole reports whether no more bytes are wanted.
func (b *Body) Whole() bool { return b.part == partNone }

// Take takes bytes of the stream, and returns how many of them it used: all, unless the
// body is complete. It keeps none of p.
func (b *Body) Take(p []byte) (used int) {
	for used < len(p) && b.part != partNone {
		switch b.part {
		case partContent, partChunk:
			n := min(uint64(len(p)-used), b.left, uint64(Shown-len(b.text)))
			b.text = append(b.text, p[used:used+int(n)]...)
			used += int(n)
			b.left -= n
			switch {
			case len(b.text) == Shown, b.left == 0 && b.part == partContent:
				b.part = partNone
			case b.left == 0:
				b.part = partBreak
			}
		case partSize:
			c := p[used]
			used++
			if c == '\n' {
				b.size()
			} else if b.line = append(b.line, c); len(b.line) == longestSize {
				b.part = partNone
			}
		case partBreak:
			switch c := p[used]; c {
			case '\n':
				b.part = partSize
			case '\r':
			default: // it is not chunked after all
				b.part = partNone
				return used
			}
			used++
		case partNone:
		}
	}
	return used
}

// size ends the line of a chunk's size.
func (b *Body) size() {
	digits, _, _ := strings.Cut(string(b.line), ";")
	n, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 63)
	b.part, b.left, b.line = partChunk, n, b.line[:0]
	if err != nil || n == 0 {
		b.part = partNone
	}
}

// String returns what was taken, on one line and as valid UTF-8. It may hold
// control characters: quote it before it is shown.
func (b *Body) String() string {
	return strings.ToValidUTF8(strings.Join(strings.Fields(string(b.text)), " "), "?")
}
