//go:build !unix

package weir_test

const unixSockets = false
