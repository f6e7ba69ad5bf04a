//go:build linux

// Command floortls is the least work that a relay which terminates TLS can do in
// Go: a thread that reads and writes with blocking calls, and opens each record in
// place. It has no handshake, no copies and one connection: see package sealed.
package main

import (
	"flag"
	"net"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/bench/internal/sealed"
	"github.com/weir-io/weir/bench/internal/side"
)

func main() {
	flag.String("cert", "", "not used")
	flag.String("key", "", "not used")
	cfg := side.Parse()
	ln, err := net.Listen("tcp4", cfg.Addr)
	side.Check(err)
	go side.Serve(ln.Addr().String())
	a, err := ln.Accept()
	side.Check(err)
	b, err := net.Dial("tcp4", cfg.Target)
	side.Check(err)
	runtime.LockOSThread()
	side.Check(relay(blocking(a), blocking(b)))
	select {} // until the load has gone
}

// blocking is a descriptor of c in blocking mode.
func blocking(c net.Conn) int {
	f, err := c.(*net.TCPConn).File()
	side.Check(err)
	return int(f.Fd())
}

// readSize is how much weir reads at once from such a connection.
const readSize = 128 << 10

func relay(from, to int) error {
	s, err := sealed.New()
	if err != nil {
		return err
	}
	buf := make([]byte, readSize+sealed.Record)
	pieces := make([][]byte, 0, len(buf)/sealed.Record+1)
	have := 0
	for {
		n, err := syscall.Read(from, buf[have:have+readSize])
		if err != nil || n == 0 {
			return err
		}
		have += n
		at := 0
		pieces = pieces[:0]
		for ; have-at >= sealed.Record; at += sealed.Record {
			p, err := s.Open(buf[at : at+sealed.Record])
			if err != nil {
				return err
			}
			pieces = append(pieces, p)
		}
		for rest := pieces; len(rest) > 0; {
			n, err := unix.Writev(to, rest)
			if err != nil {
				return err
			}
			for ; len(rest) > 0 && n >= len(rest[0]); rest = rest[1:] {
				n -= len(rest[0])
			}
			if len(rest) > 0 {
				rest[0] = rest[0][n:]
			}
		}
		have = copy(buf, buf[at:have])
	}
}
