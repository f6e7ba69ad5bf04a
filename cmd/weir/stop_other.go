//go:build !linux

package main

// stopIgnored would report whether the signal that stops a job is ignored. This system is not
// asked.
func stopIgnored() bool { return false }
