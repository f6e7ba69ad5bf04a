//go:build !unix

package backendtest

// Descriptors of the process are a Unix notion.
func descriptorChecks() []check { return nil }
