package frame

import (
	"fmt"
	"strconv"
)

// Netstrings hands the content of each netstring to f: "5:hello," as D. J. Bernstein
// defined it in 1997. The length has no leading zero.
func Netstrings(f func(frame []byte) error, opts ...Option) *Decoder {
	return newDecoder(netstrings{}, f, opts)
}

type netstrings struct{}

// maxDigits is how many digits the largest limit has.
const maxDigits = 19

func (netstrings) most(limit int) int { return maxDigits + 1 + limit + 1 }

func (netstrings) last([]byte, int) ([]byte, error) { return nil, errNoLast }

func (netstrings) measure(p []byte, _, limit int) (span, bool, error) {
	var size uint64
	for i, c := range p {
		switch {
		case '0' <= c && c <= '9':
			if i > 0 && p[0] == '0' {
				return span{}, false, badNetstring("the length begins with 0")
			}
			// Ten times a number within the limit, which is at most MaxInt/8, fits.
			size = 10*size + uint64(c-'0')
			if size > uint64(limit) {
				return span{}, false, &LimitError{Format: "netstring", Limit: limit}
			}
		case c == ':' && i > 0:
			s := span{head: i + 1, body: int(size), tail: 1}
			if end := s.head + s.body; end < len(p) && p[end] != ',' {
				return span{}, false, badNetstring(fmt.Sprintf("%q after the content instead of ','", p[end]))
			}
			return s, true, nil
		default:
			return span{}, false, badNetstring(fmt.Sprintf("%q in the length", c))
		}
	}
	return span{}, false, nil
}

func badNetstring(text string) error { return &SyntaxError{Format: "netstring", Text: text} }

// AppendNetstring appends body to dst as a netstring.
func AppendNetstring(dst, body []byte) []byte {
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, ':')
	dst = append(dst, body...)
	return append(dst, ',')
}
