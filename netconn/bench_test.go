package netconn_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// BenchmarkRoundTrip sends 64 bytes there and back over TCP, each end a goroutine that
// blocks: besides package net's connection, with a Conn on either end and on both, and
// with a Conn whose peer is a callback protocol.
func BenchmarkRoundTrip(b *testing.B) {
	b.Run("net", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		go echoOne(ln)
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		roundTrips(b, c)
	})
	b.Run("net/to a process", func(b *testing.B) {
		c, err := net.Dial("tcp", echoProcess(b).String())
		if err != nil {
			b.Fatal(err)
		}
		roundTrips(b, c)
	})
	for _, name := range weir.Backends() {
		b.Run(name+"/dials", func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			go echoOne(ln)
			roundTrips(b, dial(b, startLoop(b, weir.WithBackendName(name)), ln.Addr()))
		})
		b.Run(name+"/to a process", func(b *testing.B) {
			roundTrips(b, dial(b, startLoop(b, weir.WithBackendName(name)), echoProcess(b)))
		})
		b.Run(name+"/both", func(b *testing.B) {
			l := startLoop(b, weir.WithBackendName(name))
			ln := on(b, l, func() (*netconn.Listener, error) { return netconn.Listen(l, "tcp", "127.0.0.1:0") })
			defer ln.Close()
			go echoOne(ln)
			roundTrips(b, dial(b, l, ln.Addr()))
		})
		b.Run(name+"/callbacks", func(b *testing.B) {
			l := startLoop(b, weir.WithBackendName(name))
			ln := on(b, l, func() (*weir.Listener, error) {
				return l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
			})
			roundTrips(b, dial(b, l, ln.Addr()))
		})
	}
}

func dial(b *testing.B, l *weir.Loop, a net.Addr) net.Conn {
	b.Helper()
	c, err := netconn.Dial(context.Background(), l, a.Network(), a.String())
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// echoProcess starts this binary as a server of package net for one connection.
func echoProcess(b *testing.B) net.Addr {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Skip(err)
	}
	cmd := exec.Command(exe, "-test.run", "^TestEchoProcess$")
	cmd.Env = append(os.Environ(), echoVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	a, err := net.ResolveTCPAddr("tcp", strings.TrimSpace(line))
	if err != nil {
		b.Fatal(err)
	}
	return a
}

// echoVariable makes TestEchoProcess a server.
const echoVariable = "NETCONN_ECHO"

// TestEchoProcess is the process that echoProcess starts.
func TestEchoProcess(t *testing.T) {
	if os.Getenv(echoVariable) == "" {
		t.Skip("only for benchmarks")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(ln.Addr())
	echoOne(ln)
}

// echoOne serves one connection until its end.
func echoOne(ln net.Listener) {
	c, err := ln.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	buf := make([]byte, 4<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func roundTrips(b *testing.B, c net.Conn) {
	defer c.Close()
	buf := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStream sends bytes one way, in writes of 32 KiB.
func BenchmarkStream(b *testing.B) {
	b.Run("net", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		stream(b, ln, func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) })
	})
	for _, name := range weir.Backends() {
		b.Run(name, func(b *testing.B) {
			l := startLoop(b, weir.WithBackendName(name))
			ln := on(b, l, func() (*netconn.Listener, error) { return netconn.Listen(l, "tcp", "127.0.0.1:0") })
			defer ln.Close()
			stream(b, ln, func() (net.Conn, error) { return dial(b, l, ln.Addr()), nil })
		})
	}
}

func stream(b *testing.B, ln net.Listener, dial func() (net.Conn, error)) {
	got := make(chan int64, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- -1
			return
		}
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 32<<10))
		_ = c.Close()
		got <- n
	}()
	c, err := dial()
	if err != nil {
		b.Fatal(err)
	}
	piece := make([]byte, 32<<10)
	b.SetBytes(int64(len(piece)))
	b.ReportAllocs()
	sent := int64(0)
	for b.Loop() {
		n, err := c.Write(piece)
		if err != nil {
			b.Fatal(err)
		}
		sent += int64(n)
	}
	_ = c.Close()
	if n := <-got; n != sent {
		b.Fatalf("%d bytes arrived of %d", n, sent)
	}
}
