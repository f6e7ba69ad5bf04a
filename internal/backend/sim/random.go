package sim

import (
	"math/rand/v2"
	"time"

	"github.com/weir-io/weir/internal/splitmix"
)

// purpose names what a generator is for.
type purpose uint64

const (
	forLatency purpose = iota
	forCuts
	forAgain
	forOrder
	forTurns
	forCancel
	forFates
	forAccept
	forOpen
	forLoss
	forWeather
	forPorts
	forSwarm
	forWaits
	forDatagrams
	forSelf
	forCalls
	forPrograms
	forForeign
	purposes
)

// random draws for one purpose.
type random struct{ pcg rand.PCG }

func newRandom(seed uint64, p purpose) random {
	var r random
	r.pcg.Seed(seed, splitmix.Gamma*(uint64(p)+1))
	return r
}

// chance is true with probability p. It draws only if p is above 0.
func (r *random) chance(p float64) bool {
	return p > 0 && float64(r.pcg.Uint64()>>11)*(1.0/(1<<53)) < p
}

// below returns a number from 0 to n-1; n must be above 0.
func (r *random) below(n int) int {
	if n <= 1 {
		return 0
	}
	return int(r.pcg.Uint64() % uint64(n))
}

// upTo returns a duration from 0 to d.
func (r *random) upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(r.pcg.Uint64() % uint64(d+1))
}

// cut returns how many of n are taken, 1 to n, small numbers often.
func (r *random) cut(n int) int {
	if n <= 1 {
		return n
	}
	switch r.below(4) {
	case 0:
		return 1
	case 1:
		return 1 + r.below(min(n, 16))
	}
	return 1 + r.below(n)
}
