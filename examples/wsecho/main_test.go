package main

import (
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
	"github.com/weir-io/weir/weirtest"
)

// Both ends in the simulator: every message comes back, whatever its length.
func TestEcho(t *testing.T) {
	for _, compress := range []bool{false, true} {
		s := weirtest.NewSim(t, 1)
		c := ws.Config{Compress: compress}
		l := s.Host("client").Loop()
		if _, err := s.Host("server").Loop().Listen("tcp", ":7", layer.Server(func(weir.Transport) weir.Protocol { return &echo{} }, ws.Server(c))); err != nil {
			t.Fatal(err)
		}
		p := &client{loop: l, lengths: []int{0, 0, 1, 1, 125, 126, 65535, 65536, 1 << 20, 10 << 20}}
		l.Connect("tcp", "server:7", layer.Client(p, ws.Client(c)))
		s.Until("all messages", func() bool { return p.t != nil && p.t.Protocol() == nil })
		if p.err != nil || p.at != len(p.lengths) {
			t.Errorf("compress %v: %d messages, %v", compress, p.at, p.err)
		}
	}
}

func TestLengths(t *testing.T) {
	if err := talk("127.0.0.1:1", ws.Config{}, "1,x"); err == nil || !strings.Contains(err.Error(), "invalid") {
		t.Error(err)
	}
}
