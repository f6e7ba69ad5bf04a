package main

import (
	"bytes"
	"io"
	"testing"

	"github.com/weir-io/weir/examples/internal/program"
)

// R61: nine lines.
func TestNineLines(t *testing.T) { program.Source(t, 9) }

// 4 MiB and the end of the stream come back, over real sockets.
func TestEcho(t *testing.T) {
	addr := program.Start(t)
	c := program.Dial(t, addr)
	want := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(want), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
