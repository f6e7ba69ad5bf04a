//go:build !unix

package netconn_test

// unixKinds are the ways to connect that only UNIX has.
func unixKinds() []kind { return nil }
