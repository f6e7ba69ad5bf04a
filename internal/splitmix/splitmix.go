// Package splitmix has the parts of SplitMix64 (Steele, Lea and Flood, "Fast splittable
// pseudorandom number generators", 2014): it turns numbers that differ in few bits into
// numbers that differ in about half of them.
package splitmix

// Gamma is the distance between the states of SplitMix64, an odd number near 2⁶⁴
// divided by the golden ratio: its multiples are spread evenly.
const Gamma = 0x9e3779b97f4a7c15

// Mix spreads the bits of x. It is a bijection, and Mix(0) is 0; the output for a state
// s is Mix(s+Gamma).
func Mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
