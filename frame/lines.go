package frame

import (
	"bytes"
	"errors"
)

// Lines hands each line to f, without its end. A line ends with "\n" or "\r\n",
// or with what WithDelimiter says. What follows the last end when the stream
// ends is an error (*weir.UnusedError) unless WithLastLine says otherwise.
func Lines(f func(line []byte) error, opts ...Option) *Decoder {
	return newDecoder(lines{}, f, opts)
}

// WithDelimiter makes lines end with delim, of one byte at least, and with
// nothing else. It is for Lines only.
func WithDelimiter(delim string) Option {
	return func(d *Decoder) {
		if _, ok := d.format.(lines); ok && delim != "" {
			d.format = delimited{[]byte(delim)}
		}
	}
}

// WithLastLine makes the end of the stream the end of a line that has none, if
// that is not empty. It is for Lines only, which then hold an unfinished line
// themselves whatever its length.
func WithLastLine() Option {
	return func(d *Decoder) {
		switch d.format.(type) {
		case lines, delimited:
			d.lastLine, d.leave = true, 0
		}
	}
}

func tooLong(limit int) error { return &LimitError{Format: "line", Limit: limit} }

// lines end with "\n", and a "\r" before it belongs to the end.
type lines struct{}

func (lines) most(limit int) int { return limit + 2 }

func (lines) measure(p []byte, seen, limit int) (span, bool, error) {
	i := bytes.IndexByte(p[seen:], '\n')
	if i < 0 {
		if len(trimCR(p)) > limit {
			return span{}, false, tooLong(limit)
		}
		return span{}, false, nil
	}
	line := trimCR(p[:seen+i])
	if len(line) > limit {
		return span{}, false, tooLong(limit)
	}
	return span{body: len(line), tail: seen + i + 1 - len(line)}, true, nil
}

func (lines) last(p []byte, limit int) ([]byte, error) {
	if p = trimCR(p); len(p) > limit {
		return nil, tooLong(limit)
	}
	return p, nil
}

func trimCR(p []byte) []byte {
	if n := len(p); n > 0 && p[n-1] == '\r' {
		return p[:n-1]
	}
	return p
}

// delimited frames end with delim.
type delimited struct{ delim []byte }

func (f delimited) most(limit int) int { return limit + len(f.delim) }

func (f delimited) measure(p []byte, seen, limit int) (span, bool, error) {
	from := max(0, seen-len(f.delim)+1)
	i := bytes.Index(p[from:], f.delim)
	if i < 0 {
		if len(p)-f.begun(p) > limit {
			return span{}, false, tooLong(limit)
		}
		return span{}, false, nil
	}
	if from+i > limit {
		return span{}, false, tooLong(limit)
	}
	return span{body: from + i, tail: len(f.delim)}, true, nil
}

// begun returns how many bytes at the end of p may be the beginning of a
// delimiter.
func (f delimited) begun(p []byte) int {
	for n := min(len(f.delim)-1, len(p)); n > 0; n-- {
		if bytes.HasSuffix(p, f.delim[:n]) {
			return n
		}
	}
	return 0
}

func (delimited) last(p []byte, limit int) ([]byte, error) {
	if len(p) > limit {
		return nil, tooLong(limit)
	}
	return p, nil
}

// ErrDelimiter is returned for a line that would not be read as it was written.
var ErrDelimiter = errors.New("frame: the line contains its own end")

// AppendLine appends line and delim to dst. With an empty delim it appends "\n"
// and takes no line that has one, or that ends with "\r". A line that contains
// delim, or would form it together with what follows, is ErrDelimiter, and dst
// is returned as it was.
func AppendLine(dst, line []byte, delim string) ([]byte, error) {
	if delim == "" {
		if bytes.IndexByte(line, '\n') >= 0 || len(trimCR(line)) != len(line) {
			return dst, ErrDelimiter
		}
		return append(append(dst, line...), '\n'), nil
	}
	n := len(dst)
	out := append(append(dst, line...), delim...)
	if bytes.Index(out[n:], []byte(delim)) != len(line) {
		return dst, ErrDelimiter
	}
	return out, nil
}
