//go:build !race

package weirtest

// underRace is true in builds with the race detector.
const underRace = false
