//go:build unix

package interop

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weir-io/weir"
)

// BenchmarkQUICTransfer sends 4 MiB over a stream of quic-go, both ends of which have
// package net's sockets or netconn's, and reports how much that is for a second of CPU.
func BenchmarkQUICTransfer(b *testing.B) {
	b.Run("net", func(b *testing.B) {
		transfer(b, func() net.PacketConn {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				b.Fatal(err)
			}
			return c
		})
	})
	for _, name := range weir.Backends() {
		b.Run("weir-"+name, func(b *testing.B) {
			loops := []*weir.Loop{startLoop(b, name), startLoop(b, name)} // one for each end
			transfer(b, func() net.PacketConn {
				l := loops[0]
				loops = loops[1:]
				return listenPacket(b, l, "127.0.0.1:0")
			})
		})
	}
}

func transfer(b *testing.B, listen func() net.PacketConn) {
	const size = 4 << 20
	server, client := quicConfigs()
	sc, cc := listen(), listen()
	st, ct := &quic.Transport{Conn: sc}, &quic.Transport{Conn: cc}
	ln, err := st.Listen(server, nil)
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- swallow(ln) }()
	ctx := within(b, 2*time.Minute)
	c, err := ct.Dial(ctx, sc.LocalAddr(), client, nil)
	if err != nil {
		b.Fatal(err)
	}
	body := pattern(size)
	b.SetBytes(size)
	b.ResetTimer()
	before := cpuTime(b)
	for range b.N {
		s, err := c.OpenStreamSync(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Write(body); err != nil {
			b.Fatal(err)
		}
		_ = s.Close()
		if n, err := io.Copy(io.Discard, s); n != 1 || err != nil {
			b.Fatal(n, err)
		}
	}
	used := cpuTime(b) - before
	b.StopTimer()
	b.ReportMetric(float64(b.N)*size/1e6/used.Seconds(), "MB/cpu-s")
	_ = c.CloseWithError(0, "")
	_ = ln.Close()
	if err := <-served; !errors.Is(err, quic.ErrServerClosed) {
		b.Error(err)
	}
	_, _, _, _ = ct.Close(), st.Close(), cc.Close(), sc.Close()
}

// swallow reads every stream of every connection to its end and answers it with a byte,
// until ln is closed.
func swallow(ln *quic.Listener) error {
	for {
		c, err := ln.Accept(context.Background())
		if err != nil {
			return err
		}
		go func() {
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return
				}
				if _, err := io.Copy(io.Discard, s); err == nil {
					_, _ = s.Write([]byte{1})
				}
				_ = s.Close()
			}
		}()
	}
}

// cpuTime is what the process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
