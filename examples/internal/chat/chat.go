// Package chat tests the chat servers: the one with callbacks and the one with
// coroutines, which must not differ in anything that a member can see.
package chat

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
	"github.com/weir-io/weir/weirtest"
)

// seeds is in how many ways the bytes are split.
const seeds = 50

// Test runs conversations with the server that serve starts, in the simulator,
// with the bytes split in many ways.
func Test(t *testing.T, serve func(l *weir.Loop, address string) error) {
	for seed := range uint64(seeds) {
		f := weirtest.Faults{}
		if seed > 0 {
			f.CutRead, f.CutWrite, f.CutWire = 0.4, 0.4, 0.4
		}
		c := &cast{T: t, sim: weirtest.NewSim(t, seed+1, weirtest.WithFaults(f))}
		server := c.sim.Host("server").Loop()
		c.loop = c.sim.Host("members").Loop()
		if err := serve(server, ":7002"); err != nil {
			t.Fatal(err)
		}
		root := task.New(future.On(c.loop))
		root.Go("conversation", c.conversation)
		root.Go("the slow", c.slow)
		if err := c.sim.Run(nil); err != nil {
			t.Fatalf("%v\n%s", err, root)
		}
		if err := root.Close(); err != nil {
			t.Error(err)
		}
		if n := server.Connections(); n != 0 {
			t.Errorf("%d connections left", n)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			c.sim.Explain()
			return
		}
	}
}

// cast is the people who chat.
type cast struct {
	*testing.T
	sim  *weirtest.Sim
	loop *weir.Loop
}

type person struct {
	*stream.Stream
	t    *task.Task
	name string
}

func (c *cast) join(t *task.Task, name string) (*person, error) {
	s, err := stream.Dial(t, c.loop, "tcp", "server:7002")
	if err != nil {
		return nil, err
	}
	p := &person{s, t, name}
	if err := p.hear("name?"); err != nil {
		return nil, err
	}
	return p, p.say(name)
}

func (p *person) say(line string) error {
	_, err := p.Write([]byte(line + "\n"))
	return err
}

// hear fails unless these lines come next.
func (p *person) hear(lines ...string) error {
	for _, want := range lines {
		got, err := p.ReadLine(p.t, 2000)
		if err != nil || string(got) != want {
			return fmt.Errorf("%s heard %q (%w), not %q", p.name, got, err, want)
		}
	}
	return nil
}

// end fails unless the server closes now.
func (p *person) end() error {
	if b, err := p.Read(p.t, make([]byte, 1)); err != io.EOF { //nolint:errorlint // Read returns it as it is
		return fmt.Errorf("%s got %d bytes and %w at the end", p.name, b, err)
	}
	return p.Close()
}

func (c *cast) conversation(t *task.Task) error {
	ann, err := c.join(t, "ann")
	if err != nil {
		return err
	}
	bob, err := c.join(t, "ann and bob")
	if err != nil {
		return err
	}
	steps := []func() error{
		func() error { return ann.hear("* here: ann") },
		func() error { return bob.hear("a name has 1 to 20 letters from a to z", "name?") },
		func() error { return bob.say("ann") },
		func() error { return bob.hear("taken", "name?") },
		func() error { return bob.say("bob") },
		func() error { return bob.hear("* here: ann, bob") },
		func() error { return ann.hear("* bob is here") },
		func() error { return ann.say("hello\r\nhow are you?") },
		func() error { return bob.hear("ann: hello", "ann: how are you?") },
		func() error { return bob.say(strings.Repeat("long ", 150)) },
		func() error { return ann.hear("bob: " + strings.Repeat("long ", 150)) },
		func() error { return bob.say("/quit\nnot heard any more") },
		func() error { return bob.hear("* bye") },
		bob.end,
		func() error { return ann.hear("* bob is gone") },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	carl, err := c.join(t, "carl")
	if err != nil {
		return err
	}
	if err := errors.Join(ann.hear("* carl is here"), carl.hear("* here: ann, carl")); err != nil {
		return err
	}
	// A line that is too long ends its sender's connection only.
	if err := carl.say(strings.Repeat("x", 1100)); err != nil {
		return err
	}
	if _, err := carl.Read(t, make([]byte, 1)); err == nil {
		return errors.New("carl goes on")
	}
	if err := errors.Join(carl.Close(), ann.hear("* carl is gone")); err != nil {
		return err
	}
	// Ann is silent for a long time.
	before := c.sim.Now()
	if err := ann.end(); err != nil {
		return err
	}
	if d := c.sim.Now() - before; d < 9*time.Minute || d > 11*time.Minute {
		return fmt.Errorf("silence lasted %v", d)
	}
	return nil
}

// slow never gives a name.
func (c *cast) slow(t *task.Task) error {
	s, err := stream.Dial(t, c.loop, "tcp", "server:7002")
	if err != nil {
		return err
	}
	p := &person{s, t, "the slow"}
	if err := p.hear("name?", "too slow"); err != nil {
		return err
	}
	if d := c.sim.Now(); d < 30*time.Second || d > 40*time.Second {
		return fmt.Errorf("too slow after %v", d)
	}
	return p.end()
}
