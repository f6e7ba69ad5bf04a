package ws_test

import (
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
)

// pong sends what it gets back to where it came from, and counts.
type pong struct {
	t     weir.Transport
	count *int
	first bool
}

func (p *pong) ConnectionMade(t weir.Transport) {
	p.t = t
	if p.first {
		_, _ = t.Write(make([]byte, 64))
	}
}

func (p *pong) DataReceived(b []byte) (int, error) { *p.count++; return p.t.Write(b) }
func (p *pong) ConnectionLost(error)               {}

// TestSteady: bytes through a WebSocket on both ends cost no allocation once
// traffic is steady (R6), compressed or not, on backends whose own cost is none.
func TestSteady(t *testing.T) {
	if raceEnabled {
		t.Skip("crypto/rand and compress allocate then: a sync.Pool drops what it holds")
	}
	for _, backend := range weir.Backends() {
		if backend == "portable" {
			continue // package net's own
		}
		for name, cfg := range map[string]ws.Config{"plain": {}, "compressed": {Compress: true}} {
			l, err := weir.New(weir.WithBackendName(backend))
			if err != nil {
				t.Fatal(err)
			}
			count := 0
			ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(func(weir.Transport) weir.Protocol { return &pong{count: &count} }, ws.Server(cfg)))
			if err != nil {
				t.Fatal(err)
			}
			l.Connect("tcp", ln.Addr().String(), layer.Client(&pong{count: &count, first: true}, ws.Client(cfg)))
			turns := func(messages int) {
				for want := count + messages; count < want; {
					if err := l.Turn(-1); err != nil {
						t.Fatal(err)
					}
				}
			}
			turns(200)
			if n := testing.AllocsPerRun(100, func() { turns(10) }) / 10; n != 0 {
				t.Errorf("%s, %s: %v allocations a message", backend, name, n)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
