//go:build race

// Package race tells tests whether the race detector is built in: with it a simulated
// run takes ten times as long, it finds nothing within one goroutine, and it allocates.
package race

// Enabled is true in builds with the race detector.
const Enabled = true
