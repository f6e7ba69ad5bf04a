//go:build windows

package iocp

import (
	"bytes"
	"net"
	"testing"

	"github.com/weir-io/weir/internal/backend"
)

// TestPipeBeside has a pipe and a foreign connection served beside the port, while the port
// has nothing: their results end a Wait all the same.
func TestPipeBeside(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		fds, err := b.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if d, err := b.Describe(fd); err != nil || !d.Read || !d.Write {
				t.Fatalf("a pipe is described as %+v, %v", d, err)
			}
		}
		var ends [2]backend.Handle
		for i, fd := range fds {
			if ends[i], err = b.Adopt(fd); err != nil {
				t.Fatal(err)
			}
			if ends[i] < asideFrom {
				t.Fatalf("handle %d is a socket's", ends[i])
			}
		}
		near, far := net.Pipe()
		conn, err := b.AdoptConn(near)
		if err != nil {
			t.Fatal(err)
		}
		text := bytes.Repeat([]byte("beside the port. "), 100)
		for _, way := range []struct{ from, to backend.Handle }{{ends[1], ends[0]}, {conn, conn}} {
			if way.from == conn {
				go func() { // sends back what comes
					p := make([]byte, 1<<16)
					for {
						n, err := far.Read(p)
						if err != nil {
							return
						}
						if _, err := far.Write(p[:n]); err != nil {
							return
						}
					}
				}()
			}
			for rest := text; len(rest) > 0; {
				res := b.do(&backend.Op{Kind: backend.Write, Handle: way.from, Vec: [][]byte{rest}})
				if res.Err != nil {
					t.Fatal(res.Err)
				}
				rest = rest[res.N:]
			}
			var got []byte
			for len(got) < len(text) {
				res := b.do(&backend.Op{Kind: backend.Read, Handle: way.to})
				if res.Err != nil || res.N == 0 {
					t.Fatal(res.N, res.Err)
				}
				got = append(got, res.Buf...)
			}
			if !bytes.Equal(got, text) {
				t.Fatalf("read %d bytes, want %d, or they differ", len(got), len(text))
			}
		}
		b.shut(ends[1], backend.CloseFlat)
		if res := b.do(&backend.Op{Kind: backend.Read, Handle: ends[0]}); res.N != 0 || res.Err != nil {
			t.Fatalf("at the end of the pipe: %d, %v", res.N, res.Err)
		}
		b.shut(ends[0], backend.CloseFlat)
		b.shut(conn, backend.CloseFlat)
		_ = far.Close()
	})
}
