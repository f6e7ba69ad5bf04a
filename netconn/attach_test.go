package netconn_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/netconn"
	"github.com/weir-io/weir/weirtest"
)

// hidden is a connection of a type unknown to weir, except for its half-close and its
// descriptor.
type hidden struct {
	net.Conn
	half interface {
		CloseWrite() error
		SetLinger(sec int) error
	}
}

func (h hidden) CloseWrite() error       { return h.half.CloseWrite() }
func (h hidden) SetLinger(sec int) error { return h.half.SetLinger(sec) }

func (h hidden) SyscallConn() (syscall.RawConn, error) { return h.Conn.(syscall.Conn).SyscallConn() }

// plain is one that cannot half-close.
type plain struct{ io.ReadWriteCloser }

// connected makes two connected sockets of package net.
func connected(t testing.TB, network, address string) (net.Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// foreign is a kind of connection from another library.
type foreign struct {
	name             string
	make             func(t testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser)
	halfClose, reset bool
	handed           bool // the loop gets its descriptor
}

var foreigns = []foreign{
	{"handed over tcp", func(t testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser) {
		return connected2(t, "tcp", "127.0.0.1:0")
	}, true, true, true},
	{"handed over unix", func(t testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser) {
		return connected2(t, "unix", filepath.Join(t.TempDir(), "s"))
	}, true, false, true},
	{"tcp", func(t testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser) {
		a, b := connected(t, "tcp", "127.0.0.1:0")
		return hidden{a, a.(*net.TCPConn)}, hidden{b, b.(*net.TCPConn)}
	}, true, true, false},
	{"tcp without half-close", func(t testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser) {
		a, b := connected(t, "tcp", "127.0.0.1:0")
		return plain{a}, plain{b}
	}, false, false, false},
	{"pipe", func(testing.TB) (io.ReadWriteCloser, io.ReadWriteCloser) { return pipe2() }, false, false, false},
}

func connected2(t testing.TB, network, address string) (io.ReadWriteCloser, io.ReadWriteCloser) {
	a, b := connected(t, network, address)
	return a, b
}

func pipe2() (io.ReadWriteCloser, io.ReadWriteCloser) {
	a, b := net.Pipe()
	return a, b
}

// streams makes what a case of the stream suite runs on.
func (f foreign) streams(backend string) weirtest.Maker {
	return func(t *testing.T) *weirtest.Streams {
		s := weirtest.LoopStreams("tcp", weir.WithBackendName(backend))(t)
		s.HalfClose, s.Reset, s.Opaque = f.halfClose, f.reset, true
		s.Connect = func(server weir.Factory, client weir.Protocol, opts ...weir.StreamOption) {
			t.Helper()
			a, b := f.make(t)
			if _, err := netconn.Attach(s.Server, a, server, opts...); err != nil && !errors.Is(err, weir.ErrClosed) {
				t.Fatal(err)
			}
			if _, err := netconn.Attach(s.Client, b, func(weir.Transport) weir.Protocol { return client }, opts...); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
}

// TestForeignStreams checks what every stream promises on other libraries' connections,
// with each backend (R27, R57, behaviours 20 to 47).
func TestForeignStreams(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string, _ func(testing.TB) *weir.Loop) {
		for _, f := range foreigns {
			// To a backend the others look the same as these. Connections that are
			// handed over are the root package's own sockets, which have their own
			// suite, and have no goroutine for the race detector to examine.
			first := backend == weir.Backends()[0]
			if f.name != "tcp" && (f.name != "pipe" || race.Enabled) && !first {
				continue
			}
			if f.handed && race.Enabled {
				continue
			}
			t.Run(f.name, func(t *testing.T) { weirtest.TestStreams(t, f.streams(backend)) })
		}
	})
}
