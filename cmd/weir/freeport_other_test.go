//go:build !linux

package main

import (
	"net"
	"testing"
)

// freePort is a loopback address on which nothing listens. There is no known way here
// to keep it from others until it is used.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
