//go:build !linux && !windows

package choice

func candidates() []candidate { return []candidate{portableCandidate} }
