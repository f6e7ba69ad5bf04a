package proxy

import (
	"net/netip"
	"time"
)

// Remembered is what RememberedGuessers found.
type Remembered struct {
	Most  int // entries
	Taken int // guesses of the first address that were checked
}

// RememberedGuessers makes n addresses guess at the same moment.
func RememberedGuessers(peer func(i int) netip.Prefix, n int) (r Remembered) {
	g := newGuesses(defaultGuesses)
	now := time.Unix(0, 0)
	first := peer(0)
	for i := range n {
		p := peer(i)
		if _, ok := g.take(p, now); ok && p == first {
			r.Taken++
		}
		r.Most = max(r.Most, len(g.all), g.used.Len())
	}
	return r
}
