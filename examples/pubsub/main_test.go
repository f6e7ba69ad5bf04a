package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/weir-io/weir/examples/internal/program"
)

// R61: nineteen lines.
func TestNineteenLines(t *testing.T) { program.Source(t, 19) }

// Every line reaches every subscriber, even after one has gone and however the
// line was split.
func TestPublish(t *testing.T) {
	addr := program.Start(t)
	type subscriber struct {
		*net.TCPConn
		lines *bufio.Reader
	}
	join := func() subscriber {
		c := program.Dial(t, addr)
		return subscriber{c, bufio.NewReader(c)}
	}
	say := func(s subscriber, text string) {
		t.Helper()
		if _, err := io.WriteString(s, text); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(s subscriber, want string) {
		t.Helper()
		if got, err := s.lines.ReadString('\n'); got != want+"\n" {
			t.Fatalf("heard %q, want %q: %v", got, want, err)
		}
	}
	var subscribers []subscriber
	for i := range 3 {
		// The first thing that it hears, once it has been accepted, is itself.
		s := join()
		subscribers = append(subscribers, s)
		say(s, fmt.Sprintf("here is %d\n", i))
		for _, s := range subscribers {
			hear(s, fmt.Sprintf("here is %d", i))
		}
		if i == 0 {
			continue
		}
		say(subscribers[0], "to all\r\nin two ")
		hear(s, "to all")
		say(subscribers[0], "pieces\n")
		hear(s, "in two pieces")
		for _, s := range subscribers[:i] {
			hear(s, "to all")
			hear(s, "in two pieces")
		}
	}
	gone := subscribers[1]
	if err := gone.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(gone.lines); len(rest) != 0 || err != nil {
		t.Fatalf("after leaving: %q, %v", rest, err)
	}
	say(subscribers[2], "one has left\n")
	hear(subscribers[0], "one has left")
	hear(subscribers[2], "one has left")
}
