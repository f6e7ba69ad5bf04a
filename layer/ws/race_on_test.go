//go:build race

package ws_test

// raceEnabled is true in builds with the race detector.
const raceEnabled = true
