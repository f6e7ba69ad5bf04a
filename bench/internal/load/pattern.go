package load

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// Every connection carries one endless stream: the pattern, over and over, from
// a start of its own. So a byte that is lost, doubled, changed, out of place or
// from another connection is detected where it occurs.
const (
	period = 65537   // a prime: no message size divides it
	chunk  = 1 << 18 // the most that is read or written at once
)

type pattern []byte

func newPattern() pattern {
	p := make([]byte, period+chunk)
	rnd := rand.NewChaCha8([32]byte{'w', 'e', 'i', 'r'})
	_, _ = rnd.Read(p[:period])
	for i := period; i < len(p); i++ {
		p[i] = p[i-period]
	}
	return p
}

// at is n bytes, or chunk if that is fewer, of a stream from position pos on.
func (p pattern) at(start, pos uint64, n int) []byte {
	i := (start + pos) % period
	return p[i : i+uint64(min(n, chunk))]
}

// check compares what arrived with what must arrive at pos.
func (p pattern) check(start, pos uint64, got []byte) error {
	want := p.at(start, pos, len(got))
	if bytes.Equal(want, got) {
		return nil
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d of a stream is %#x, must be %#x", pos+uint64(i), got[i], want[i])
		}
	}
	return fmt.Errorf("%d bytes at %d of a stream: too many at once", len(got), pos)
}
