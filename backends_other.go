//go:build !linux

package weir

func candidates() []candidate { return []candidate{portableCandidate} }
