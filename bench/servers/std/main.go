// Command std is the standard library's echo server and relay: a goroutine for
// each connection, or two; with datagrams one, and one more for each flow of a relay.
package main

import (
	"bufio"
	"io"
	"net"

	"github.com/weir-io/weir/bench/internal/side"
)

func main() {
	cfg := side.Parse()
	if cfg.UDP {
		datagrams(cfg)
		return
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	side.Check(err)
	go side.Serve(ln.Addr().String())
	for {
		c, err := ln.Accept()
		side.Check(err)
		switch {
		case cfg.Target != "":
			go relay(c.(*net.TCPConn), cfg)
		case cfg.Frame > 0:
			go answer(c, cfg)
		default:
			go echo(c, make([]byte, cfg.Buf))
		}
	}
}

func echo(c net.Conn, buf []byte) {
	defer c.Close()
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// answer writes an answer to each message; with Join those at hand leave
// together.
func answer(c net.Conn, cfg side.Config) {
	defer c.Close()
	in, msg := bufio.NewReaderSize(c, cfg.Buf), make([]byte, cfg.Frame)
	out := bufio.NewWriterSize(c, cfg.Buf)
	for {
		if _, err := io.ReadFull(in, msg); err != nil {
			return
		}
		if _, err := out.Write(msg); err != nil {
			return
		}
		if cfg.Join && in.Buffered() >= len(msg) {
			continue
		}
		if err := out.Flush(); err != nil {
			return
		}
	}
}

// onlyReader and onlyWriter hide what io.Copy would splice with.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

func relay(a *net.TCPConn, cfg side.Config) {
	defer a.Close()
	c, err := net.Dial("tcp", cfg.Target)
	if err != nil {
		return
	}
	b := c.(*net.TCPConn)
	defer b.Close()
	pass := func(to, from *net.TCPConn) {
		if cfg.Copy {
			_, _ = io.CopyBuffer(onlyWriter{to}, onlyReader{from}, make([]byte, cfg.Buf))
		} else {
			_, _ = io.Copy(to, from)
		}
		_ = to.CloseWrite()
	}
	done := make(chan struct{})
	go func() {
		pass(a, b)
		close(done)
	}()
	pass(b, a)
	<-done
}
