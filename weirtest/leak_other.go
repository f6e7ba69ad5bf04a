//go:build !linux

package weirtest

// descriptors returns nothing: they cannot be listed here.
func descriptors() map[string]descriptor { return nil }
