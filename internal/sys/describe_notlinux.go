//go:build unix && !linux

package sys

func describeFamily(int, *Description) {}
