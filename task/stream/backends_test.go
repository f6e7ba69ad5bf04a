package stream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
	"github.com/weir-io/weir/weirtest"
)

// The same coroutines on sockets, with every backend, with and without debug mode, over
// TCP and a UNIX socket (R2, R55).
func TestBackends(t *testing.T) {
	for _, name := range weir.Backends() {
		for _, debug := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, debug %v", name, debug), func(t *testing.T) {
				weirtest.CheckLeaks(t)
				opts := []weir.LoopOption{weir.WithBackendName(name)}
				if debug {
					opts = append(opts, weir.WithDebug(time.Minute), weir.WithErrorHandler(func(err error) { t.Error(err) }))
				}
				l, err := weir.NewLoop(opts...)
				if err != nil {
					t.Skip(name, ": ", err)
				}
				dir := t.TempDir()
				err = task.Run(l, func(t *task.Task) error {
					return errors.Join(
						echoOn(t, l, "tcp", "127.0.0.1:0"),
						echoOn(t, l, "unix", filepath.Join(dir, "s")),
					)
				}, task.Within(time.Minute))
				if err := errors.Join(err, l.Close()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// echoOn sends a megabyte through a server, ends writing, and reads all of it
// back.
func echoOn(t *task.Task, l *weir.Loop, network, address string) error {
	return t.With(func(sc *task.Scope) error {
		ln, err := l.Listen(network, address, stream.Factory(sc, echo))
		if err != nil {
			return err
		}
		defer ln.Close()
		c, err := stream.Dial(t, l, network, ln.Addr().String())
		if err != nil {
			return err
		}
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		sc.Go("writer", func(t *task.Task) error {
			for i := 0; i < len(sent); i += 1 << 15 {
				if err := c.Send(t, sent[i:i+1<<15]); err != nil {
					return err
				}
			}
			return c.CloseWrite()
		})
		got := make([]byte, len(sent))
		if n, err := c.ReadFull(t, got); err != nil || !bytes.Equal(got, sent) {
			return fmt.Errorf("%d of %d bytes, equal %v: %w", n, len(sent), bytes.Equal(got, sent), err)
		}
		if n, err := c.Read(t, got); n != 0 || !errors.Is(err, io.EOF) {
			return fmt.Errorf("at the end %d bytes and %w", n, err)
		}
		// A sleep that is cut short here does not affect the next wait.
		err = t.With(func(*task.Scope) error { return t.Sleep(time.Hour) }, task.Within(time.Millisecond))
		if !errors.Is(err, future.ErrTimeout) {
			return fmt.Errorf("slept for an hour: %w", err)
		}
		return errors.Join(c.Close(), c.Closed(t))
	})
}
