// Command stdtls is the standard library's TLS echo server and a relay that
// terminates TLS: a goroutine for each connection, or two.
package main

import (
	"crypto/tls"
	"flag"
	"io"
	"net"
	"time"

	"github.com/weir-io/weir/bench/internal/side"
)

// handshakeTimeout is weir's default.
const handshakeTimeout = 10 * time.Second

func main() {
	cert := flag.String("cert", "", "file of the certificate")
	key := flag.String("key", "", "file of its key")
	cfg := side.Parse()
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	side.Check(err)
	ln, err := net.Listen("tcp", cfg.Addr)
	side.Check(err)
	go side.Serve(ln.Addr().String())
	server := &tls.Config{Certificates: []tls.Certificate{pair}}
	for {
		conn, err := ln.Accept()
		side.Check(err)
		go serve(tls.Server(conn, server), cfg)
	}
}

func serve(c *tls.Conn, cfg side.Config) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(handshakeTimeout))
	if c.Handshake() != nil {
		return
	}
	_ = c.SetDeadline(time.Time{})
	if cfg.Target != "" {
		relay(c, cfg.Target)
		return
	}
	buf := make([]byte, cfg.Buf)
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

func relay(c *tls.Conn, target string) {
	conn, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	b := conn.(*net.TCPConn)
	defer b.Close()
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(c, b)
		_ = c.CloseWrite()
		close(done)
	}()
	_, _ = io.Copy(b, c)
	_ = b.CloseWrite()
	<-done
}
