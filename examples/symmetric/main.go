// Symmetric shows a protocol in which both ends ask and answer on one
// connection: the server, asked for a greeting, first asks its client for the
// name. Neither end has a thread that waits, and neither can wait forever for
// the other to be in the right state.
//
//	go run ./examples/symmetric
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

func main() {
	l, err := weir.NewLoop()
	if err == nil {
		err = errors.Join(task.Run(l, func(t *task.Task) error {
			return t.With(func(sc *task.Scope) error {
				ln, err := l.Listen("tcp", "127.0.0.1:0", stream.Factory(sc, greeter))
				if err != nil {
					return err
				}
				greetings, err := greet(t, l, ln.Addr().String(), "gopher", "morning", "night")
				for _, g := range greetings {
					fmt.Println(g)
				}
				return errors.Join(err, ln.Close())
			}, task.Within(10*time.Second))
		}), l.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// greeter is the server's end.
func greeter(t *task.Task, c *stream.Stream) error {
	return newPeer(c, func(t *task.Task, p *peer, hour string) (string, error) {
		name, err := task.Await(t, p.ask(t.Scheduler(), "who are you?"))
		return "good " + hour + ", " + name, err
	}).serve(t)
}

// greet is the client's end: it asks for all greetings at once, and answers
// what it is asked meanwhile.
func greet(t *task.Task, l *weir.Loop, address, name string, hours ...string) (greetings []string, err error) {
	c, err := stream.Dial(t, l, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	p := newPeer(c, func(*task.Task, *peer, string) (string, error) { return name, nil })
	err = t.With(func(sc *task.Scope) (err error) {
		sc.Go("serves", func(t *task.Task) error {
			if err := p.serve(t); err != nil {
				return err
			}
			return errors.New("the server has gone")
		})
		var asked []*future.Future[string]
		for _, hour := range hours {
			asked = append(asked, p.ask(t.Scheduler(), hour))
		}
		greetings, err = task.Await(t, future.Gather(t.Scheduler(), asked...))
		sc.Cancel(nil)
		return err
	})
	return greetings, err
}
