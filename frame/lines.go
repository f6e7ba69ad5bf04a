package frame

import (
	"bytes"
	"errors"
)

// Lines hands each line to f, without its end. A line ends with "\n" or "\r\n", or with
// WithDelimiter's delimiter. If bytes follow the last line when the stream ends, that
// is an error (*weir.UnusedError) unless WithLastLine is given.
func Lines(f func(line []byte) error, opts ...Option) *Decoder {
	return newDecoder(lines{}, f, opts)
}

// WithDelimiter makes lines end with delim, which has at least one byte, and with
// nothing else. It is for Lines only.
func WithDelimiter(delim string) Option {
	return func(d *Decoder) {
		if _, ok := d.format.(lines); ok && delim != "" {
			d.format = delimited{[]byte(delim)}
		}
	}
}

// WithLastLine makes the end of the stream end a line that has no delimiter, if the
// line is not empty. It is for Lines only; the Decoder then holds an unfinished line
// itself, whatever its length.
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

// ErrDelimiter is returned for a line that would not be read back as it was written.
var ErrDelimiter = errors.New("frame: the line contains its own end")

// AppendLine appends line and delim to dst. If delim is empty, AppendLine appends "\n"
// and refuses a line that contains one or ends with "\r". For a line that contains
// delim, or would form it together with what follows, the error is ErrDelimiter, and
// dst is returned as it was.
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
