//go:build race

package weir_test

// underRace is true in builds with the race detector, which takes ten times as
// long for a simulated run and finds nothing in one goroutine.
const underRace = true
