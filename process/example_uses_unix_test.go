//go:build unix

package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/netconn"
	"github.com/weir-io/weir/process"
	"github.com/weir-io/weir/task"
)

// A task awaits a program as it awaits anything else: its start, and its exit.
func ExampleStart_task() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	starts := executor.New("start", 1, 10)
	err = task.Run(l, func(t *task.Task) error {
		for _, script := range []string{"exit 0", "exit 3", "kill -9 $$"} {
			p, err := task.Await(t, process.Start(t.Scheduler(), starts, &process.Command{Path: "sh", Args: []string{"sh", "-c", script}}))
			if err != nil {
				return err
			}
			exit, err := task.Await(t, p.Exited())
			if err != nil {
				return err
			}
			fmt.Println(exit)
		}
		return nil
	})
	if err := errors.Join(err, l.Close()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// exit code 0
	// exit code 3
	// signal: killed
}

// An exit is a future: here a program that takes too long is stopped, with all that it has
// started.
func ExampleProcess_Exited() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	s := future.On(l)
	starts := executor.New("start", 1, 10)
	l.Soon(func() {
		sleep := &process.Command{Path: "sleep", Args: []string{"sleep", "1000"}, Group: true}
		exited := future.Then(process.Start(s, starts, sleep), func(p *process.Process) *future.Future[process.Exit] {
			slow := future.Timeout(future.Shield(p.Exited()), 10*time.Millisecond)
			slow.OnDone(func(_ process.Exit, err error) {
				if err != nil {
					fmt.Println(err)
					p.Stop(time.Second)
				}
			})
			return p.Exited()
		})
		exited.OnDone(func(exit process.Exit, err error) {
			fmt.Println(exit, err)
			l.Stop()
		})
	})
	if err := errors.Join(l.Run(), l.Close()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// future: timed out
	// signal: terminated <nil>
}

// A program's streams are net.Conns for code that blocks.
func ExamplePipes_netconn() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	over := make(chan error, 1)
	go func() { over <- l.Run() }()

	starts := executor.New("start", 1, 10)
	ctx := context.Background()
	conn := netconn.New(l)
	s := process.Pipes(func(weir.Transport) weir.Protocol { return conn.Protocol() })
	exit, err := netconn.Call(ctx, l, func() (<-chan future.Result[process.Exit], error) {
		sort := &process.Command{Path: "sort", Files: map[int]process.File{0: s.In(), 1: s.Out()}}
		started := process.Start(future.On(l), starts, sort)
		return future.Chan(future.Then(started, (*process.Process).Exited)), nil
	})
	if err == nil {
		err = conn.Made(ctx)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = fmt.Fprint(conn, "pear\napple\n")
	if err := errors.Join(err, conn.CloseWrite()); err != nil { // sort begins at the end of its input
		fmt.Println(err)
	}
	sorted, err := io.ReadAll(conn)
	fmt.Print(string(sorted))
	fmt.Println((<-exit).Value, err)

	l.Stop()
	if err := errors.Join(conn.Close(), <-over, l.Close()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// apple
	// pear
	// exit code 0 <nil>
}
