package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-io/weir/bench/internal/load"
	"github.com/weir-io/weir/bench/internal/sealed"
)

// bulk sends through a relay as fast as possible: "up" from the client, whose bytes
// the relay decrypts, "down" from the backend, "both" at once. "up-sealed" is "up"
// with records and no TLS, for the floor.
func (l *loader) bulk() (result, error) {
	got := make(chan net.Conn, 1)
	go func() {
		if c, err := l.backend.Accept(); err == nil {
			got <- c
		}
	}()
	var c net.Conn
	var err error
	if l.Kind == "up-sealed" {
		c, err = net.DialTimeout("tcp4", l.Addr, 10*time.Second)
	} else {
		c, err = l.dial()
	}
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	var into io.Writer = c
	if l.Kind == "up-sealed" {
		if into, err = sealed.NewWriter(c); err != nil {
			return result{}, err
		}
	}
	var back net.Conn
	select {
	case back = <-got:
	case <-time.After(10 * time.Second):
		return result{}, errors.New("the relay did not connect")
	}
	defer back.Close()
	var bytes atomic.Uint64
	var stop atomic.Bool
	failed := make(chan error, 4)
	var all sync.WaitGroup
	pass := func(to io.Writer, from io.Reader) {
		all.Go(func() {
			piece := make([]byte, 64<<10)
			for !stop.Load() {
				if _, err := to.Write(piece); err != nil {
					failed <- err
					return
				}
			}
		})
		go func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := from.Read(buf)
				bytes.Add(uint64(n))
				if err != nil {
					if !stop.Load() {
						failed <- err
					}
					return
				}
			}
		}()
	}
	if l.Kind != "down" {
		pass(into, back)
	}
	if l.Kind == "down" || l.Kind == "both" {
		pass(back, c)
	}
	end := func() {
		stop.Store(true)
		all.Wait() // the readers continue to read, so the writers are not blocked
	}
	defer end()
	select {
	case err := <-failed:
		return result{}, err
	case <-time.After(l.Warm):
	}
	w, err := l.open()
	if err != nil {
		return result{}, err
	}
	before := bytes.Load()
	select {
	case err := <-failed:
		return result{}, err
	case <-time.After(l.Run):
	}
	r := result{Bytes: bytes.Load() - before}
	if t, ok := c.(*tls.Conn); ok {
		r.Suite = suite(t)
	}
	return r, w.shut(&r)
}

// session is a connect, a handshake, 64 bytes there and back, and a close. With a cache the
// handshake resumes a session, except for the first ones.
func (l *loader) session() (string, error) {
	c, err := l.dial()
	if err != nil {
		return "", err
	}
	defer c.Close()
	if l.cfg.ClientSessionCache != nil && !c.ConnectionState().DidResume {
		l.full.Add(1)
	}
	buf := make([]byte, 64)
	if _, err := c.Write(buf); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(c, buf); err != nil {
		return "", fmt.Errorf("the answer: %w", err)
	}
	return suite(c), nil
}

// answer is the backend: it sends everything back.
func (l *loader) answer() {
	for {
		c, err := l.backend.Accept()
		if err != nil {
			return
		}
		go func() {
			buf := make([]byte, 4096)
			for {
				n, err := c.Read(buf)
				if _, werr := c.Write(buf[:n]); err != nil || werr != nil {
					_ = c.Close()
					return
				}
			}
		}()
	}
}

// errFull means that the server does not resume sessions.
var errFull = errors.New("handshakes that should have resumed a session were full ones")

// sessions keeps Conns sessions going at one time; without a cache every handshake is a full
// one.
func (l *loader) sessions() (result, error) {
	go l.answer()
	var r result
	var h load.Histogram
	var mu sync.Mutex
	var all sync.WaitGroup
	counting, over := false, false
	var first error
	for range l.Conns {
		all.Go(func() {
			for {
				began := time.Now()
				s, err := l.session()
				mu.Lock()
				if err != nil && first == nil {
					first = err
				}
				if counting {
					r.Count++
					h.Add(int64(time.Since(began)))
					r.Suite = s
				}
				stop := over || first != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	ended := make(chan struct{}) // early, by a failure
	go func() { all.Wait(); close(ended) }()
	pass := func(d time.Duration) {
		select {
		case <-ended:
		case <-time.After(d):
		}
	}
	pass(l.Warm)
	w, err := l.open()
	mu.Lock()
	counting = true
	mu.Unlock()
	pass(l.Run)
	mu.Lock()
	counting, over = false, true
	if err == nil {
		err = w.shut(&r)
	}
	mu.Unlock()
	<-ended
	if first == nil && l.full.Load() > r.Count/10+uint64(l.Conns) {
		first = errFull
	}
	r.P50, r.P99, r.Max = h.Quantile(0.5), h.Quantile(0.99), h.Max()
	return r, errors.Join(err, first)
}

// idle makes Conns connections that each send one message and get it back,
// reports that, and keeps them until a line comes. It also waits for one after Few.
func (l *loader) idle() error {
	go l.answer()
	var r result
	for range l.Conns {
		c, err := l.dial()
		if err != nil {
			return fmt.Errorf("connection %d: %w", r.Count, err)
		}
		defer c.Close()
		buf := make([]byte, 64)
		if _, err := c.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
		r.Count++
		r.Suite = suite(c)
		if r.Count == uint64(l.Few) {
			if err := say(r); err != nil {
				return err
			}
			l.in.Scan()
		}
	}
	if err := say(r); err != nil {
		return err
	}
	l.in.Scan()
	return nil
}
