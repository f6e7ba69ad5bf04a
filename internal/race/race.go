//go:build race

// Package race tells tests whether the race detector is built in: it takes ten times
// as long for a simulated run, finds nothing in one goroutine, and allocates.
package race

// Enabled is true in builds with the race detector.
const Enabled = true
