package stream_test

import (
	"errors"
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

// A server that reads as if it waited.
func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	err = task.Run(l, func(t *task.Task) error {
		return t.With(func(sc *task.Scope) error {
			ln, err := l.Listen("tcp", "127.0.0.1:0", stream.Factory(sc, func(t *task.Task, c *stream.Stream) error {
				line, err := c.ReadLine(t, 100)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(c, "hello, %s\n", line)
				return err
			}))
			if err != nil {
				return err
			}
			c, err := stream.Dial(t, l, "tcp", ln.Addr().String())
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte("weir\n")); err != nil {
				return err
			}
			line, err := c.ReadLine(t, 100)
			fmt.Printf("%s\n", line)
			return errors.Join(err, c.Close(), ln.Close())
		})
	})
	if err := errors.Join(err, l.Close()); err != nil {
		fmt.Println(err)
	}
	// Output: hello, weir
}
