package utp

import (
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// TestHalfOpenForgets: an endpoint keeps nothing of connections that are over.
func TestHalfOpenForgets(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	ln, err := Listen(s.Host("a").Loop(), "udp4", s.Host("a").Addr(9), func(weir.Transport) weir.Protocol { return weir.NopProtocol{} }, Config{})
	if err != nil {
		t.Fatal(err)
	}
	ep := ln.Endpoint()
	const conns = 50
	for range conns {
		Connect(s.Host("b").Loop(), "udp4", s.Host("a").Addr(9), weir.NopProtocol{}, Config{})
	}
	s.Until("all connections", func() bool { return ln.accepted == conns })
	if n := len(ep.half); n > 0 || ep.halfN != 0 {
		t.Errorf("%d connections are kept as half open, and %d are", n, ep.halfN)
	}
}
