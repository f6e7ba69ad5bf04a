package frame

import (
	"bytes"
	"net"
	"runtime"
	"testing"

	"github.com/weir-io/weir"
)

// R6 over a real socket: lines that every read cuts at a different place, without an
// allocation per line.
func TestLinesOverTCP(t *testing.T) {
	const (
		chunk  = 1000 // lines in a write
		chunks = 300
		warm   = 10 * chunk
	)
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.Repeat([]byte("0123456789"), 10)
	var before, after runtime.MemStats
	lines := 0
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
		return Lines(func(got []byte) error {
			if !bytes.Equal(got, line) {
				t.Errorf("line %d is %q", lines, got)
			}
			if lines++; lines == warm {
				runtime.ReadMemStats(&before)
			}
			if lines == chunk*chunks {
				runtime.ReadMemStats(&after)
			}
			return nil
		}, OnLost(func(err error) {
			if err != nil {
				t.Error(err)
			}
			l.Stop()
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		defer c.Close()
		data := bytes.Repeat(append(line, '\r', '\n'), chunk)
		for range chunks {
			if _, err := c.Write(data); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if lines != chunk*chunks {
		t.Fatalf("%d lines, want %d", lines, chunk*chunks)
	}
	if n := after.Mallocs - before.Mallocs; n > (chunk*chunks-warm)/50 { // some backends allocate for each read
		t.Errorf("%d allocations for %d lines", n, chunk*chunks-warm)
	}
}
