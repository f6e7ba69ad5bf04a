package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/weir-io/weir/bench/internal/load"
)

// quiet sends 64 bytes and takes them back, over and over, on Conns connections.
// For each line on standard input it prints what it has counted since the last.
func (l *loader) quiet() error {
	var mu sync.Mutex
	h := &load.Histogram{}
	var r result
	failed := make(chan error, l.Conns)
	for range l.Conns {
		c, err := l.dial()
		if err != nil {
			return err
		}
		r.Suite = suite(c)
		go func() {
			buf := make([]byte, 64)
			for {
				began := time.Now()
				if _, err := c.Write(buf); err != nil {
					failed <- err
					return
				}
				if _, err := io.ReadFull(c, buf); err != nil {
					failed <- err
					return
				}
				mu.Lock()
				h.Add(int64(time.Since(began)))
				r.Count++
				mu.Unlock()
			}
		}()
	}
	since := time.Now()
	for l.in.Scan() {
		select {
		case err := <-failed:
			return fmt.Errorf("a connection that was served before: %w", err)
		default:
		}
		mu.Lock()
		was, hist := r, h
		r.Count = 0
		h = &load.Histogram{}
		mu.Unlock()
		was.Seconds = time.Since(since).Seconds()
		since = time.Now()
		was.P50, was.P99, was.Max = hist.Quantile(0.5), hist.Quantile(0.99), hist.Max()
		if err := say(was); err != nil {
			return err
		}
	}
	return nil
}

// stall opens Conns connections as fast as it can, sends a hello on each and
// nothing more, and keeps them until a line comes.
func (l *loader) stall() error {
	hello := l.hello()
	began := time.Now()
	conns := make([]net.Conn, 0, l.Conns)
	for len(conns) < l.Conns {
		c, err := net.DialTimeout("tcp4", l.Addr, 10*time.Second)
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(conns), err)
		}
		conns = append(conns, c)
		if _, err := c.Write(hello); err != nil {
			return fmt.Errorf("connection %d: %w", len(conns), err)
		}
	}
	if err := say(result{Count: uint64(len(conns)), Seconds: time.Since(began).Seconds()}); err != nil {
		return err
	}
	l.in.Scan()
	for _, c := range conns {
		_ = c.Close()
	}
	return nil
}

// hello is a client's first message.
func (l *loader) hello() []byte {
	a, b := net.Pipe()
	first := make(chan []byte)
	go func() {
		buf := make([]byte, 16<<10)
		n, _ := b.Read(buf)
		_ = b.Close()
		first <- buf[:n]
	}()
	_ = tls.Client(a, l.cfg).Handshake() // it fails: no one answers
	return <-first
}
