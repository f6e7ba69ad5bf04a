package load

import "math/bits"

// Histogram counts durations in ns by buckets of at most 1/64 of their value.
type Histogram struct {
	counts [64 * 60]uint64
	n, max uint64
}

// subBits is how many bits below the highest one distinguish buckets.
const subBits = 6

func bucket(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)<<subBits + int(v>>shift) - 1<<subBits
}

// middle is the value in the middle of a bucket.
func middle(i int) float64 {
	if i < 1<<subBits {
		return float64(i)
	}
	shift := i>>subBits - 1
	low := uint64(i&(1<<subBits-1)+1<<subBits) << shift
	return float64(low) + float64(uint64(1)<<shift-1)/2
}

// Add counts one duration; one below 0 counts as 0.
func (h *Histogram) Add(ns int64) {
	v := uint64(max(ns, 0))
	h.counts[bucket(v)]++
	h.n++
	h.max = max(h.max, v)
}

// Max is the longest.
func (h *Histogram) Max() float64 { return float64(h.max) }

// Quantile is the value that a fraction q of all durations do not exceed.
func (h *Histogram) Quantile(q float64) float64 {
	if h.n == 0 {
		return 0
	}
	want := uint64(q * float64(h.n))
	if want >= h.n {
		want = h.n - 1
	}
	for i, c := range h.counts {
		if want < c {
			return min(middle(i), float64(h.max))
		}
		want -= c
	}
	return float64(h.max)
}
