//go:build !race

package netconn_test

// underRace is true in builds with the race detector.
const underRace = false
