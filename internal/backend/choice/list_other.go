//go:build !linux

package choice

func candidates() []candidate { return []candidate{portableCandidate} }
