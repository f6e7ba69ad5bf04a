//go:build !unix

package contract

const unixSockets = false
