package main

import (
	"io"
	"testing"

	"github.com/weir-io/weir/examples/internal/program"
)

// TestTerminated: lines are answered, and at SIGTERM everyone is told good-bye.
func TestTerminated(t *testing.T) {
	p := program.Run(t)
	c := program.Dial(t, p.Addr)
	if _, err := c.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, len("HELLO\n"))); err != nil {
		t.Fatal(err)
	}
	p.Terminate(t)
	if rest, err := io.ReadAll(c); string(rest) != "good-bye\n" || err != nil {
		t.Errorf("heard %q, %v", rest, err)
	}
	_ = c.Close()
	if said := p.Ended(t); said != "" {
		t.Errorf("it said %q", said)
	}
}
