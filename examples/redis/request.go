package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// The limits are Redis's own.
const (
	maxLine = 64 << 10  // bytes of an inline command or of a count
	maxArgs = 1 << 20   // arguments of a command
	maxBulk = 512 << 20 // bytes of an argument
)

// A request is an incoming command: an array of bulk strings,
//
//	*2 CRLF $4 CRLF ECHO CRLF $2 CRLF hi CRLF
//
// or an inline line of words. parse continues where it stopped when it is
// called again with more bytes after the same ones, so no byte is examined
// twice.
type request struct {
	pos   int      // parsed so far
	left  int      // arguments still to come
	array bool     // exactly when the array's header is parsed
	bulk  int      // the length of the argument whose header is parsed
	open  bool     // exactly when bulk says something
	spans [][2]int // where arguments begin and end
	args  [][]byte // the same as slices, once it is whole
}

func (r *request) reset() {
	*r = request{spans: r.spans[:0], args: r.args[:0]}
	if cap(r.spans) > 1024 {
		r.spans, r.args = nil, nil
	}
}

// need returns how many bytes parse wants before it can continue; 0 if it does
// not know.
func (r *request) need() int {
	if !r.open {
		return 0
	}
	return r.pos + r.bulk + 2
}

// parse reports whether b holds the whole of the command; r.pos is then its
// length and r.args, slices of b, its words. Its errors are sent to the client.
func (r *request) parse(b []byte) (whole bool, err error) {
	if !r.array {
		if len(b) == 0 {
			return false, nil
		}
		if b[0] != '*' {
			return r.inline(b)
		}
		n, ok, err := r.count(b, "too big mbulk count string", "invalid multibulk length", maxArgs)
		if !ok {
			return false, err
		}
		r.array, r.left = true, n
	}
	for ; r.left > 0; r.left-- {
		if !r.open {
			if r.pos == len(b) {
				return false, nil
			}
			if c := b[r.pos]; c != '$' {
				return false, fmt.Errorf("expected '$', got %s", quoteByte(c))
			}
			n, ok, err := r.count(b, "too big bulk count string", "invalid bulk length", maxBulk)
			if !ok {
				return false, err
			}
			if n < 0 {
				return false, errors.New("invalid bulk length")
			}
			r.bulk, r.open = n, true
		}
		if len(b) < r.need() {
			return false, nil
		}
		r.spans = append(r.spans, [2]int{r.pos, r.pos + r.bulk})
		r.pos = r.need()
		r.open = false
	}
	for _, s := range r.spans {
		r.args = append(r.args, b[s[0]:s[1]:s[1]])
	}
	return true, nil
}

// count parses a line of one type byte and a number.
func (r *request) count(b []byte, tooBig, invalid string, most int) (n int, ok bool, err error) {
	line := b[r.pos:]
	i := bytes.IndexByte(line, '\n')
	if i > maxLine || i < 0 && len(line) > maxLine {
		return 0, false, errors.New(tooBig)
	}
	if i < 0 {
		return 0, false, nil
	}
	v, ok := parseInt(bytes.TrimSuffix(line[1:i], []byte("\r")))
	if !ok || v > int64(most) || v < math.MinInt32 {
		return 0, false, errors.New(invalid)
	}
	r.pos += i + 1
	return int(v), true, nil
}

func (r *request) inline(b []byte) (bool, error) {
	i := bytes.IndexByte(b, '\n')
	if i > maxLine || i < 0 && len(b) > maxLine {
		return false, errors.New("too big inline request")
	}
	if i < 0 {
		return false, nil
	}
	r.pos = i + 1
	args, ok := splitWords(r.args, bytes.TrimSuffix(b[:i], []byte("\r")))
	if !ok {
		return false, errors.New("unbalanced quotes in request")
	}
	r.args = args
	return true, nil
}

// splitWords appends the words of a line: separated by white space, "quoted"
// with escapes, or 'quoted' with no escape except \'.
func splitWords(words [][]byte, line []byte) (_ [][]byte, ok bool) {
	for {
		line = bytes.TrimLeft(line, " \t\r\n\v\f\x00")
		if len(line) == 0 {
			return words, true
		}
		word, rest, ok := cutWord(line)
		if !ok {
			return nil, false
		}
		words = append(words, word)
		line = rest
	}
}

func cutWord(line []byte) (word, rest []byte, ok bool) {
	word = []byte{}
	for len(line) > 0 {
		switch c := line[0]; {
		case isSpace(c):
			return word, line, true
		case c == '"' || c == '\'':
			quoted, n, ok := unquote(line)
			if !ok || n < len(line) && !isSpace(line[n]) {
				return nil, nil, false
			}
			return append(word, quoted...), line[n:], true
		default:
			word = append(word, c)
			line = line[1:]
		}
	}
	return word, nil, true
}

func isSpace(c byte) bool { return bytes.IndexByte([]byte(" \t\r\n\v\f\x00"), c) >= 0 }

// unquote returns the quoted word at the beginning of s, and how long it is
// there.
func unquote(s []byte) (text []byte, n int, ok bool) {
	quote := s[0]
	for n = 1; n < len(s); n++ {
		c := s[n]
		switch {
		case c == quote:
			return text, n + 1, true
		case c == '\\' && n+1 < len(s) && quote == '\'' && s[n+1] == '\'':
			n++
			c = '\''
		case c == '\\' && n+1 < len(s) && quote == '"':
			n++
			c = s[n]
			if i := bytes.IndexByte([]byte("nrtba"), c); i >= 0 {
				c = "\n\r\t\b\a"[i]
			} else if c == 'x' && n+2 < len(s) {
				if v, err := strconv.ParseUint(string(s[n+1:n+3]), 16, 8); err == nil {
					c = byte(v)
					n += 2
				}
			}
		}
		text = append(text, c)
	}
	return nil, 0, false
}

func quoteByte(c byte) string {
	if c < ' ' || c > '~' {
		return fmt.Sprintf("'\\x%02x'", c)
	}
	return fmt.Sprintf("'%c'", c)
}

// parseInt takes integers as Redis does: no sign except -, no leading zeros.
func parseInt(b []byte) (int64, bool) {
	digits := b
	if len(digits) > 1 && digits[0] == '-' {
		digits = digits[1:]
	}
	if len(digits) == 0 || len(digits) > 19 || digits[0] < '0' || digits[0] > '9' || digits[0] == '0' && len(b) > 1 {
		return 0, false
	}
	v, err := strconv.ParseInt(string(b), 10, 64)
	return v, err == nil
}
