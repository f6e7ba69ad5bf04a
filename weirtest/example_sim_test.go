package weirtest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/weirtest"
)

// Two hosts in a simulated network, with a latency of 50 ms between them and a
// server that takes an hour to answer. The seed decides everything, and nothing
// here takes real time.
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

// A test of a protocol in many worlds, with different faults in each. It is a
// function in a _test.go file; when a world fails, it says in words what went
// wrong there, and how to replay that world.
func ExampleSeeds() {
	test := func(t *testing.T) {
		weirtest.Seeds(t, 200, func(t *testing.T, s *weirtest.Sim) {
			listen := func(weir.Transport) weir.Protocol { return frame.Lines(func([]byte) error { return nil }) }
			if _, err := s.Host("server").Loop().Listen("tcp", ":7000", listen); err != nil {
				t.Skip("a drawn shortage:", err)
			}
			over := false
			s.Host("client").Loop().Connect("tcp", "server:7000", frame.Lines(nil,
				frame.OnMade(func(t weir.Transport) { fmt.Fprintln(t, "hello"); _ = t.Close() }),
				frame.OnLost(func(error) { over = true }),
			))
			s.HealAll() // what is true at the end, once nothing goes wrong any more
			_ = s.Run(nil)
			if !over && s.Now() > time.Hour {
				t.Error("the client was never told that it is over")
			}
		}, weirtest.WithSwarm())
	}
	_ = test // go test runs it as TestHello
}

// What is sent first arrives last: a test may decide anything that a network could do.
func ExampleSim_Hold() {
	s := weirtest.NewSim(tb, 1)
	defer s.Close()
	var heard []string
	serve := func(weir.Transport) weir.Protocol {
		return frame.Lines(func(line []byte) error {
			heard = append(heard, string(line))
			return nil
		})
	}
	if _, err := s.Host("server").Loop().Listen("tcp", ":7000", serve); err != nil {
		panic(err)
	}
	first := s.Hold(func(e weirtest.SimEvent) bool { return e.What == weirtest.Arrival && e.Host == "client" && e.N > 0 })
	for i, word := range []string{"one", "two"} {
		s.Host("client").Loop().Connect("tcp", "server:7000", frame.Lines(nil, frame.OnMade(func(t weir.Transport) { fmt.Fprintln(t, word) })))
		s.Until("what is sent to be held", func() bool { return len(first.Held()) == i+1 })
	}
	first.Release(1)
	s.Until("the second", func() bool { return len(heard) == 1 })
	first.End()
	s.Until("both", func() bool { return len(heard) == 2 })
	fmt.Println(heard)
	// Output: [two one]
}
