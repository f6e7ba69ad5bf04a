package layer_test

import (
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
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

// steady returns how many allocations a message costs, through layers on both
// ends, once traffic is steady.
func steady(t *testing.T, backend string, server, client []layer.Layer) float64 {
	t.Helper()
	l, err := weir.New(weir.WithBackendName(backend))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	count := 0
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(func(weir.Transport) weir.Protocol { return &pong{count: &count} }, server...))
	if err != nil {
		t.Fatal(err)
	}
	l.Connect("tcp", ln.Addr().String(), layer.Client(&pong{count: &count, first: true}, client...))
	turns := func(messages int) {
		for want := count + messages; count < want; {
			if err := l.Turn(-1); err != nil {
				t.Fatal(err)
			}
		}
	}
	turns(200)
	return testing.AllocsPerRun(100, func() { turns(10) }) / 10
}

// TestSteady: a message through one layer, and through three, costs no
// allocation, on every backend whose own cost is none (R6).
func TestSteady(t *testing.T) {
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // package net's own
		}
		for what, stack := range map[string][]layer.Layer{"one": {plain}, "three": {plain, plain, plain}} {
			if n := steady(t, name, stack, stack); n != 0 {
				t.Errorf("%s, %s: %v allocations a message", name, what, n)
			}
		}
	}
}
