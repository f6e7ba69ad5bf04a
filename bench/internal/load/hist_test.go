package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestQuantiles compares with sorting, over eight orders of magnitude.
func TestQuantiles(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	var all []float64
	for range 100_000 {
		v := int64(math.Exp(rnd.Float64() * 18))
		h.Add(v)
		all = append(all, float64(v))
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		if got := h.Quantile(q); math.Abs(got-want) > want/64+1 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if h.Max() != all[len(all)-1] {
		t.Errorf("max %v, want %v", h.Max(), all[len(all)-1])
	}
}

// TestBucketsInOrder checks that no value falls into a bucket before a smaller
// one's and that no bucket is wider than 1/64 of its values.
func TestBucketsInOrder(t *testing.T) {
	last := -1
	for v := uint64(0); v < 1<<20; v++ {
		b := bucket(v)
		if b < last || b > last+1 {
			t.Fatalf("bucket(%d) = %d after %d", v, b, last)
		}
		last = b
		if math.Abs(middle(b)-float64(v)) > float64(v)/64 {
			t.Fatalf("%d is in a bucket around %v", v, middle(b))
		}
	}
	if b := bucket(math.MaxInt64); b >= len(Histogram{}.counts) {
		t.Fatalf("the largest duration falls in bucket %d", b)
	}
}
