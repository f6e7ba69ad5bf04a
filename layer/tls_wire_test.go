package layer

import (
	"slices"
	"testing"
)

// ends lists where records end in a stream that is handed over in pieces.
func ends(p []byte, piece func(rest int) int) []int {
	var r recordEnd
	var at []int
	pos := 0
	for pos < len(p) {
		part := p[pos : pos+piece(len(p)-pos)]
		for len(part) > 0 {
			n := r.next(part)
			part = part[n:]
			if pos += n; r.have == 0 {
				at = append(at, pos)
			}
		}
	}
	return at
}

// FuzzRecordEnd: however a stream is cut, its records end in the same places,
// those given by its headers.
func FuzzRecordEnd(f *testing.F) {
	f.Add([]byte("\x17\x03\x03\x00\x02ab\x15\x03\x03\x00\x00\x16\x03\x03\x00\x01c"), uint8(3))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint8(1))
	f.Add([]byte{23, 3, 3, 255}, uint8(2))
	f.Fuzz(func(t *testing.T, p []byte, cut uint8) {
		var want []int
		for pos := 0; len(p)-pos >= headerLen; {
			pos += headerLen + int(p[pos+3])<<8 + int(p[pos+4])
			if pos > len(p) {
				break
			}
			want = append(want, pos)
		}
		for _, piece := range []func(int) int{
			func(rest int) int { return rest },
			func(int) int { return 1 },
			func(rest int) int { return min(rest, 1+int(cut)) },
		} {
			if got := ends(p, piece); !slices.Equal(got, want) {
				t.Errorf("records end at %v, want %v", got, want)
			}
		}
		if done := (recordEnd{}).completes(p); done != (len(want) > 0) {
			t.Errorf("a record ends within: %v, want %v", done, len(want) > 0)
		}
	})
}
