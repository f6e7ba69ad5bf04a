package refusal

import (
	"strings"
	"testing"
)

// TestPieces: which part of a body is taken and whether it is complete, whatever pieces
// the body comes in.
func TestPieces(t *testing.T) {
	long := strings.Repeat("so ", 1000)
	chunked := [][2]string{{"transfer-encoding", "chunked"}}
	for _, c := range []struct {
		status int
		fields [][2]string
		stream string
		want   string
		used   int
		whole  bool
	}{
		{403, nil, "never\r\n whole", "never whole", 13, false},
		{403, nil, long, strings.TrimSpace(long[:Shown]), Shown, true},
		{403, [][2]string{{"content-length", "3"}}, "askmore", "ask", 3, true},
		{403, [][2]string{{"content-length", "0"}}, "more", "", 0, true},
		{403, [][2]string{{"content-length", "99"}, {"content-length", "3"}}, "askmore", "ask", 3, true},
		{403, [][2]string{{"content-length", "many"}}, "ask", "ask", 3, false},
		{403, [][2]string{{"content-length", "99999999999999999999"}}, long, strings.TrimSpace(long[:Shown]), Shown, true},
		{403, [][2]string{{"content-type", "image/png"}}, "PNG", "", 0, true},
		{403, [][2]string{{"content-type", "application/problem+JSON"}}, "{}", "{}", 2, false},
		{403, [][2]string{{"content-encoding", "gzip"}}, "\x1f\x8b", "", 0, true},
		{403, [][2]string{{"transfer-encoding", "gzip, chunked"}}, "3\r\nask\r\n0\r\n\r\n", "", 0, true},
		{204, nil, "more", "", 0, true},
		{304, chunked, "3\r\nask\r\n", "", 0, true},
		{403, chunked, "3\r\nask\r\n0\r\n\r\n", "ask", 11, true},
		{403, append(chunked, [2]string{"content-length", "1"}), "3\r\nask\r\n0\r\n\r\n", "ask", 11, true},
		{403, chunked, "3;x=y\r\nask\r\nA \n the admin\r\n0\r\n\r\n", "ask the admin", 30, true},
		{403, chunked, "6\r\n0\r\n\r\nX\r\n0\r\n\r\n", "0 X", 14, true}, // looks like the end, and is not
		{403, chunked, "3\r\nask no chunk", "ask", 6, true},
		{403, chunked, "ffffffffffffffffffffff\r\nask", "", 24, true},
		{403, chunked, "\r\nask", "", 2, true},
		{403, chunked, strings.Repeat("1", longestSize) + "\r\n", "", longestSize, true},
		{403, chunked, "fff\r\n" + long, strings.TrimSpace(long[:Shown]), 5 + Shown, true},
		{403, chunked, "fff\r\nask", "ask", 8, false},
		{403, nil, "a\xff\x1b", "a?\x1b", 3, false},
	} {
		for _, size := range []int{len(c.stream), 1, 7} {
			b, rest, used := Of(c.status, c.fields), c.stream, 0
			for len(rest) > 0 && !b.Whole() {
				k := min(size, len(rest))
				n := b.Take([]byte(rest[:k]))
				if n < k && !b.Whole() {
					t.Fatalf("%.40q: %d of %d bytes were used, and it is not whole", c.stream, n, k)
				}
				used += n
				rest = rest[n:]
			}
			if b.String() != c.want || used != c.used || b.Whole() != c.whole {
				t.Errorf("%v %.40q in pieces of %d: %q, %d used, whole %v; want %q, %d, %v",
					c.fields, c.stream, size, b.String(), used, b.Whole(), c.want, c.used, c.whole)
			}
		}
	}
}
