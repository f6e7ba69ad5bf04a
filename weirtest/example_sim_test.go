package weirtest_test

import (
	"fmt"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/weirtest"
)

// Two hosts in a simulated network, with a way of 50 ms between them and a server
// that takes an hour to answer. The seed decides everything, and nothing here
// takes time.
func ExampleSim() {
	s := weirtest.NewSim(tb, 7, weirtest.WithFaults(weirtest.Faults{Latency: 50 * time.Millisecond}))
	defer s.Close() // a test's *testing.T does it, and fails if something was left open
	server, client := s.Host("server"), s.Host("client")

	slow := func(t weir.Transport) weir.Protocol {
		return frame.Lines(func(line []byte) error {
			answer := string(line) + "!\n" // line is lent until this returns
			t.Loop().After(time.Hour, func() { fmt.Fprint(t, answer) })
			return nil
		})
	}
	if _, err := server.Loop().Listen("tcp", ":7000", slow); err != nil {
		panic(err)
	}
	heard := ""
	client.Loop().Connect("tcp", "server:7000", frame.Lines(
		func(line []byte) error {
			heard = string(line)
			return nil
		},
		frame.OnMade(func(t weir.Transport) { fmt.Fprintln(t, "hello") }),
	))
	s.Until("the answer", func() bool { return heard != "" })
	fmt.Println(heard, "after", s.Now().Round(10*time.Millisecond))
	// Output: hello! after 1h0m0.2s
}
