package netconn_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/netconn"
	"github.com/weir-io/weir/weirtest"
)

// TestNothingStays: Conns, foreign connections and a foreign listener leave no
// goroutines and no descriptors (G6).
func TestNothingStays(t *testing.T) {
	weirtest.CheckLeaks(t)
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		for _, f := range foreigns {
			t.Run(f.name, func(t *testing.T) {
				l := newLoop(t)
				for i := range 20 {
					a, b := attached(f.make)(t, l, l)
					if _, err := a.Write([]byte("hello")); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(b, make([]byte, 5)); err != nil {
						t.Fatal(err)
					}
					switch i % 3 {
					case 0:
						_ = a.Close()
						if _, err := b.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // readers compare with ==
							t.Errorf("got %v, want EOF", err)
						}
						_ = b.Close()
					case 1:
						_, _ = b.Close(), a.Close()
					default:
						a.(*netconn.Conn).Abort()
						_ = b.Close()
					}
				}
			})
		}
	})
}

// TestServe: connections of a foreign listener are served by callbacks until the
// context ends, a refused one is closed, and a shortage does not end it.
func TestServe(t *testing.T) {
	weirtest.CheckLeaks(t)
	l := startLoop(t)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &shortListener{Listener: inner, failures: 3}
	ctx, cancel := context.WithCancelCause(context.Background())
	served := make(chan error, 1)
	n := 0
	go func() {
		served <- netconn.Serve(ctx, l, ln, func(t weir.Transport) weir.Protocol {
			if n++; n == 2 {
				return nil
			}
			return weir.DataFunc(t.Write)
		})
	}()
	for i := range 3 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(soon())
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadFull(c, make([]byte, 5))
		if refused := i == 1; (err != nil) != refused || refused && isTimeout(err) {
			t.Errorf("connection %d: %v", i, err)
		}
		_ = c.Close()
	}
	why := errors.New("enough")
	cancel(why)
	if err := <-served; !errors.Is(err, why) {
		t.Errorf("Serve ended with %v", err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// shortListener fails a few times as if out of descriptors.
type shortListener struct {
	net.Listener
	failures int
}

type shortage struct{}

func (shortage) Error() string   { return "too many open files" }
func (shortage) Temporary() bool { return true }

func (l *shortListener) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, shortage{}
	}
	return l.Listener.Accept()
}

// TestGroup: a listener whose connections are spread over the loops of a group.
func TestGroup(t *testing.T) {
	g, err := weir.NewGroup(2)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := netconn.NewListener(g.Loops()[0], func(f weir.Factory) (*weir.Listener, error) {
		return g.Listen("tcp", "127.0.0.1:0", f)
	})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- g.Run() }()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				// A loop whose connections are gone would get the next one too.
				conn := c.(*netconn.Conn)
				fmt.Fprintf(c, "%p", conn.Loop())
				_ = conn.CloseWrite()
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	loops := map[string]int{}
	var held []net.Conn
	for range 8 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	for _, c := range held {
		_ = c.SetDeadline(soon())
		name, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		loops[string(name)]++
		_ = c.Close()
	}
	if len(loops) != 2 {
		t.Errorf("8 connections on loops %v", loops)
	}
	_ = ln.Close()
	g.Stop()
	if err := errors.Join(<-over, g.Close()); err != nil {
		t.Error(err)
	}
}

// TestAllocations: a round trip over two Conns allocates nothing (R6).
func TestAllocations(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		a, b := dialled("tcp")(t, l, l)
		defer a.Close()
		defer b.Close()
		go func() { _, _ = io.CopyBuffer(struct{ io.Writer }{b}, struct{ io.Reader }{b}, make([]byte, 1024)) }()
		buf := make([]byte, 64)
		trip := func() {
			if _, err := a.Write(buf); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(a, buf); err != nil {
				t.Fatal(err)
			}
		}
		for range 50 {
			trip()
		}
		// Buffers that the collector took are made again, so less than one per ten
		// trips counts as none. The race detector's pools drop some on purpose.
		if n := testing.AllocsPerRun(200, trip); n >= 1 && !race.Enabled {
			t.Errorf("%v allocations a round trip on %s", n, backend)
		}
	})
}

// TestStorm: readers, writers, deadlines, half-closes and aborts at once, on
// connections that come and go: no one waits for ever.
func TestStorm(t *testing.T) {
	weirtest.CheckLeaks(t)
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		ln := on(t, l, func() (*netconn.Listener, error) { return netconn.Listen(l, "tcp", "127.0.0.1:0") })
		defer ln.Close()
		d := netconn.Dialer{Loop: l}
		var all sync.WaitGroup
		for i := range 30 {
			all.Go(func() {
				c, err := d.DialContext(context.Background(), "tcp", ln.Addr().String())
				if errors.Is(err, syscall.ECONNRESET) {
					return // another took its other end and aborted it before it was reported
				}
				if err != nil {
					t.Error(err)
					return
				}
				s, err := ln.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				var ends sync.WaitGroup
				for j, end := range []*netconn.Conn{c.(*netconn.Conn), s.(*netconn.Conn)} {
					_ = end.SetDeadline(time.Now().Add(time.Duration(20+i) * time.Millisecond))
					ends.Go(func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{end}) })
					ends.Go(func() {
						for {
							if _, err := end.Write(make([]byte, 30_000)); err != nil {
								return
							}
						}
					})
					ends.Go(func() {
						switch (i + j) % 4 {
						case 0:
							_ = end.CloseWrite()
						case 1:
							end.Abort()
						case 2:
							_ = end.SetDeadline(time.Unix(1, 0))
						default:
							_ = end.Close()
						}
					})
				}
				ends.Wait()
				_, _ = c.Close(), s.Close()
			})
		}
		all.Wait()
	})
}
