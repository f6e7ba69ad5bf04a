//go:build !race

package weir_test

// underRace is true in builds with the race detector: see race_on_test.go.
const underRace = false
