package netconn_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/netconn"
)

// kind is a way to connect, with its name.
type kind struct {
	name    string
	connect connector
}

// onBackends runs f with a loop on each backend that this machine has.
func onBackends(t *testing.T, f func(t *testing.T, backend string, newLoop func(testing.TB) *weir.Loop)) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			if only := os.Getenv("WEIR_BACKEND"); only != "" && only != name {
				t.Skip("WEIR_BACKEND asks for " + only)
			}
			l, err := weir.NewLoop(weir.WithBackendName(name))
			if err != nil {
				t.Skip(err)
			}
			served := l.Backend().Name
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if served != name {
				t.Skip("refused by the system")
			}
			f(t, name, func(t testing.TB) *weir.Loop { return startLoop(t, weir.WithBackendName(name)) })
		})
	}
}

// startLoop runs a loop on a goroutine of its own until the test ends.
func startLoop(t testing.TB, opts ...weir.LoopOption) *weir.Loop {
	t.Helper()
	l, err := weir.NewLoop(append([]weir.LoopOption{weir.WithFlushTime(time.Second)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- l.Run() }()
	t.Cleanup(func() {
		l.Stop()
		ran := <-over
		err := l.Close()
		if cut := (*weir.CutError)(nil); errors.As(err, &cut) {
			err = nil // some tests end with bytes that are never read
		}
		if err := errors.Join(ran, err); err != nil {
			t.Error(err)
		}
	})
	return l
}

// on runs f on the loop.
func on[T any](t testing.TB, l *weir.Loop, f func() (T, error)) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	v, err := netconn.Call(ctx, l, f)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A connector makes two ends of a connection on two loops, which may be one.
type connector func(t testing.TB, a, b *weir.Loop) (net.Conn, net.Conn)

// dialled connects through Listen and Dial.
func dialled(network string) connector {
	return func(t testing.TB, a, b *weir.Loop) (net.Conn, net.Conn) {
		address := "127.0.0.1:0"
		if network == "unix" {
			if runtime.GOOS == "windows" || runtime.GOOS == "js" {
				t.Skip("no UNIX sockets")
			}
			address = filepath.Join(t.TempDir(), "s")
		}
		ln := on(t, a, func() (*netconn.Listener, error) { return netconn.Listen(a, network, address) })
		defer ln.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		c2, err := netconn.Dial(ctx, b, network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c1, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c1, c2
	}
}

// paired connects through a pair of sockets, on the first loop.
func paired(t testing.TB, a, _ *weir.Loop) (net.Conn, net.Conn) {
	type pair struct{ a, b *netconn.Conn }
	p := on(t, a, func() (pair, error) {
		p := pair{netconn.New(a), netconn.New(a)}
		_, _, err := a.SocketPair(
			func(weir.Transport) weir.Protocol { return p.a.Protocol() },
			func(weir.Transport) weir.Protocol { return p.b.Protocol() })
		return p, err
	})
	return p.a, p.b
}

// taken connects through a pair of sockets and then takes the transports from the
// protocols that they had.
func taken(t testing.TB, a, _ *weir.Loop) (net.Conn, net.Conn) {
	type pair struct{ a, b *netconn.Conn }
	p := on(t, a, func() (pair, error) {
		idle := func(weir.Transport) weir.Protocol { return weir.DataFunc(func([]byte) (int, error) { return 0, nil }) }
		ta, tb, err := a.SocketPair(idle, idle)
		if err != nil {
			return pair{}, err
		}
		return pair{netconn.Take(ta), netconn.Take(tb)}, nil
	})
	return p.a, p.b
}

// layered connects as dialled does, with a layer on each end.
func layered(server, client layer.Layer) connector {
	return func(t testing.TB, a, b *weir.Loop) (net.Conn, net.Conn) {
		ln := on(t, a, func() (*netconn.Listener, error) {
			return netconn.NewListener(a, func(f weir.Factory) (*weir.Listener, error) {
				return a.Listen("tcp", "127.0.0.1:0", layer.Server(f, server))
			})
		})
		defer ln.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		d := netconn.Dialer{Loop: b, Wrap: func(top weir.Protocol) weir.Protocol { return layer.Client(top, client) }}
		c2, err := d.DialContext(ctx, "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c1, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c1, c2
	}
}

// unchanged is a layer that changes nothing.
func unchanged(a layer.Above) layer.Above {
	return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
		b := &layer.Base{}
		return b.Init(b, "unchanged", a)
	}}
}

// tlsConfigs are for a server on 127.0.0.1 and its clients.
func tlsConfigs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewTLSServer(nil) // has a certificate
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates},
		&tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "127.0.0.1"}
}

// attached connects through a foreign connection: the Conns use transports over
// connections of package net.
func attached(make func(testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser)) connector {
	return func(t testing.TB, a, b *weir.Loop) (net.Conn, net.Conn) {
		x, y := make(t)
		end := func(l *weir.Loop, conn io.ReadWriteCloser) net.Conn {
			return on(t, l, func() (*netconn.Conn, error) {
				c := netconn.New(l)
				_, err := netconn.Attach(l, conn, func(weir.Transport) weir.Protocol { return c.Protocol() })
				return c, err
			})
		}
		return end(a, x), end(b, y)
	}
}

// TestConn runs the standard conformance test of net.Conn on every backend and kind of
// stream (R57).
func TestConn(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		server, client := tlsConfigs(t)
		kinds := []kind{
			{"tcp", dialled("tcp")},
			{"unix", dialled("unix")},
			{"pair", paired},
			{"taken", taken},
			{"layered", layered(unchanged, unchanged)},
			{"tls", layered(layer.TLSServer(server), layer.TLS(client))},
		}
		kinds = append(kinds, unixKinds()...)
		for _, f := range foreigns {
			kinds = append(kinds, kind{"foreign " + f.name, attached(f.make)})
		}
		for _, c := range kinds {
			for _, loops := range []string{"one loop", "two loops"} {
				if loops == "two loops" && c.name != "tcp" && c.name != "unix" && c.name != "foreign pipe" {
					continue
				}
				t.Run(c.name+"/"+loops, func(t *testing.T) {
					nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
						a := newLoop(t)
						b := a
						if loops == "two loops" {
							b = newLoop(t)
						}
						c1, c2 := c.connect(t, a, b)
						return c1, c2, func() {
							_ = c1.Close()
							_ = c2.Close()
						}, nil
					})
				})
			}
		}
	})
}
