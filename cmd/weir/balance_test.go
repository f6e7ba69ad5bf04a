package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// TestTargetGoesUnderLoad: of two targets one goes and comes back while clients
// keep connecting, twice. No client suffers: each gets its reply from whichever
// target is there. Connections that the system took for the target but that the
// target had not accepted are lost with it whatever a relay does, so no client
// is on its way at the moment it goes.
func TestTargetGoesUnderLoad(t *testing.T) {
	var served [2]atomic.Int64
	serve := func(i int) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			served[i].Add(1)
			b, err := io.ReadAll(c)
			if err == nil {
				_, _ = c.Write(b) // the client compares
			}
		}
	}
	one := server(t, serve(0))
	two := freePort(t)
	l, err := net.Listen("tcp", two)
	if err != nil {
		t.Fatal(err)
	}
	go serveOn(l, serve(1))
	p := start(t, "tcp-listen:127.0.0.1:0", one, two, "--pick", "least", "--check", "20ms")
	at := p.listening()

	var onTheWay sync.RWMutex
	request := func() error {
		onTheWay.RLock()
		defer onTheWay.RUnlock()
		c, err := net.Dial("tcp", at)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, "request"); err != nil {
			return err
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		b, err := io.ReadAll(c)
		if err == nil && string(b) != "request" {
			err = errors.New("got " + string(b))
		}
		return err
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				if err := request(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 2 {
		p.line("ready", 1)
		onTheWay.Lock()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		onTheWay.Unlock()
		p.line("cannot connect to "+two, i+1)
		if l, err = net.Listen("tcp", two); err != nil {
			t.Fatal(err)
		}
		before := served[1].Load()
		go serveOn(l, serve(1))
		p.line("back "+two, i+1)
		for served[1].Load() < before+10 && !t.Failed() {
			if err := request(); err != nil {
				t.Error(err)
			}
		}
	}
	done.Store(true)
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d and %d served", served[0].Load(), served[1].Load())
}
