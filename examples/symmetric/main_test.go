package main

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
	"github.com/weir-io/weir/weirtest"
)

// play greets in the simulator and returns the result.
func play(t *testing.T, seed uint64, serve func(*task.Task, *stream.Stream) error, hours ...string) (greetings []string, err error) {
	weirtest.CheckLeaks(t)
	s := weirtest.NewSim(t, seed, weirtest.WithFaults(weirtest.Faults{CutRead: 0.4, CutWrite: 0.4, CutWire: 0.4, Jitter: 10 * time.Millisecond}))
	server, client := s.Host("server").Loop(), s.Host("client").Loop()
	conns := task.New(future.On(server), task.Independent(func(*task.Task, error) {}))
	root := task.New(future.On(client))
	if _, e := server.Listen("tcp", ":7003", stream.Factory(conns, serve)); e != nil {
		t.Fatal(e)
	}
	root.Go("client", func(t *task.Task) error {
		greetings, err = greet(t, client, "server:7003", "gopher", hours...)
		return nil
	})
	if e := s.Run(nil); e != nil {
		t.Fatalf("%v\n%s%s", e, root, conns)
	}
	if n := root.Tasks() + conns.Tasks(); n != 0 {
		t.Errorf("%d tasks left\n%s%s", n, root, conns)
	}
	if e := errors.Join(root.Close(), conns.Close()); e != nil {
		t.Error(e)
	}
	return greetings, err
}

// Both ends wait for replies while they serve requests, however the bytes are
// split (R7, R54).
func TestSymmetric(t *testing.T) {
	var hours, want []string
	for i := range 20 {
		hours = append(hours, fmt.Sprint(i))
		want = append(want, fmt.Sprintf("good %d, gopher", i))
	}
	for seed := range uint64(20) {
		got, err := play(t, seed+1, greeter, hours...)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("seed %d: %q, %v", seed+1, got, err)
		}
	}
}

// A server that sends nonsense, or goes away, ends the client with the reason.
func TestBadServers(t *testing.T) {
	_, err := play(t, 1, func(t *task.Task, c *stream.Stream) error {
		return c.Send(t, []byte("what?\n"))
	}, "morning")
	if !errors.Is(err, errFormat) {
		t.Error(err)
	}
	_, err = play(t, 1, func(t *task.Task, c *stream.Stream) error { return t.Sleep(time.Second) }, "morning")
	if err == nil || err.Error() != "the server has gone" {
		t.Error(err)
	}
}
