package weir_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/weir-io/weir"
)

// TestGroupSpreads: connections go to the loop that has the fewest, on every
// backend (R26).
func TestGroupSpreads(t *testing.T) {
	g, err := weir.NewGroup(3)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := g.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := g.Run(); err != nil {
			t.Error(err)
		}
	})
	const conns = 9
	for range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	g.Stop()
	wg.Wait()
	for i, l := range g.Loops() {
		if n := l.Connections(); n != conns/3 {
			t.Errorf("loop %d has %d connections of %d", i, n, conns)
		}
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}
