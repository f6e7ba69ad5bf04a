package contract

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

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

// TestGroupClosedInHandOver: a connection on its way to a loop that closes
// before taking it over is closed too (G6).
func TestGroupClosedInHandOver(t *testing.T) {
	var told []error
	g, err := weir.NewGroup(2, weir.WithErrorHandler(func(err error) { told = append(told, err) }))
	if err != nil {
		t.Fatal(err)
	}
	d := &door{most: 2}
	ln, err := g.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }, weir.WithAdmission(d))
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn // the second goes to the other loop, which does not run
	for i := range conns {
		if conns[i], err = net.Dial("tcp", ln.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		for ln.Conns() == i {
			if err := g.Loops()[0].Turn(time.Second); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	for i, c := range conns {
		if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("connection %d is still open: %v", i, err)
		}
	}
	if len(told) > 0 {
		t.Errorf("told of %v", told)
	}
	if d.asked != 2 || d.open != 0 {
		t.Errorf("%d were asked for, %d never left", d.asked, d.open)
	}
}

// TestGroupListenerDone: a listener that is closed is told when the last of its connections
// is gone, although that one was on another loop.
func TestGroupListenerDone(t *testing.T) {
	g, err := weir.NewGroup(3)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := g.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := g.Run(); err != nil {
			t.Error(err)
		}
	})
	first := g.Loops()[0]
	conns := func() int {
		n := make(chan int)
		if _, err := first.Post(func() { n <- ln.Conns() }); err != nil {
			t.Fatal(err)
		}
		return <-n
	}
	var clients []net.Conn
	for range 6 { // the loops get one each, and again
		c := dialTo(t, ln.Addr())
		_, _ = c.Write([]byte("x"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	done := make(chan struct{})
	if _, err := first.Post(func() {
		_ = ln.Close() // always nil
		ln.OnDone(func() { close(done) })
	}); err != nil {
		t.Fatal(err)
	}
	for i, c := range []int{0, 3, 1, 2, 4, 5} { // those of the listener's own loop first
		if err := clients[c].Close(); err != nil {
			t.Error(err)
		}
		for end := time.Now().Add(patience); i == 1 && conns() > 4; {
			if time.Now().After(end) {
				t.Fatalf("%d connections are counted", conns())
			}
		}
	}
	select {
	case <-done:
	case <-time.After(patience):
		t.Errorf("not told; %d connections are counted", conns())
	}
	g.Stop()
	wg.Wait()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}
