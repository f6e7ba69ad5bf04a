//go:build !linux

package weirtest

// descriptors returns nothing: descriptors cannot be listed here.
func descriptors() map[string]descriptor { return nil }
