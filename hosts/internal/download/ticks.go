package download

import (
	"fmt"
	"slices"
	"time"
)

// Ticks records when a host's own timer fired. The zero value is ready.
type Ticks struct {
	last time.Time
	gaps []time.Duration
}

// gapsMost bounds the record: twelve days of a timer of 16 ms would be more than that.
const gapsMost = 1 << 16

// Tick records one tick.
func (k *Ticks) Tick() {
	now := time.Now()
	if !k.last.IsZero() && len(k.gaps) < gapsMost {
		k.gaps = append(k.gaps, now.Sub(k.last))
	}
	k.last = now
}

// N is how many intervals were recorded.
func (k *Ticks) N() int { return len(k.gaps) }

// String says how long the intervals between ticks were, and forgets them.
func (k *Ticks) String() string {
	g := slices.Sorted(slices.Values(k.gaps))
	*k = Ticks{}
	if len(g) == 0 {
		return "ticks=0"
	}
	at := func(part float64) float64 { return float64(g[int(part*float64(len(g)-1))].Microseconds()) / 1000 }
	return fmt.Sprintf("ticks=%d p50=%.2fms p99=%.2fms max=%.2fms", len(g), at(0.5), at(0.99), at(1))
}
