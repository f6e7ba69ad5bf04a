package netconn_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/netconn"
	"github.com/weir-io/weir/task"
)

// TestDebugWaits: in debug mode a call that would wait for its own loop is refused,
// both in a callback and in a task; the task is named.
func TestDebugWaits(t *testing.T) {
	var said bytes.Buffer
	l, err := weir.NewLoop(weir.WithDebug(time.Hour), weir.WithLogger(slog.New(slog.NewTextHandler(&said, nil))))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ln, err := netconn.Listen(l, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := netconn.ListenPacket(l, "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	conn := netconn.New(l)
	calls := map[string]func() error{
		"netconn.Call":                func() error { _, err := netconn.Call(ctx, l, func() (int, error) { return 0, nil }); return err },
		"netconn.Dial":                func() error { _, err := netconn.Dial(ctx, l, "tcp", ln.Addr().String()); return err },
		"netconn.Conn.Made":           func() error { return conn.Made(ctx) },
		"netconn.Conn.Read":           func() error { _, err := conn.Read(make([]byte, 1)); return err },
		"netconn.Conn.Write":          func() error { _, err := conn.Write(make([]byte, 1<<20)); return err },
		"netconn.Listener.Accept":     func() error { _, err := ln.Accept(); return err },
		"netconn.PacketConn.ReadFrom": func() error { _, _, err := pc.ReadFrom(make([]byte, 1)); return err },
	}
	try := func(taskName string) {
		for name, call := range calls {
			var w *weir.WaitError
			if err := call(); !errors.As(err, &w) || w.Call != name || w.Task != taskName {
				t.Errorf("%s in task %q: %v", name, taskName, err)
			}
		}
	}
	l.Soon(func() { try("") })
	root := task.New(future.On(l))
	root.Go("asker", func(*task.Task) error {
		try("asker")
		l.Stop()
		return nil
	})
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "in task asker") {
		t.Errorf("the log says %s", said.String())
	}
}

// TestDebugSlowTask: the report of a slow callback names the task that ran in it.
func TestDebugSlowTask(t *testing.T) {
	var reported []error
	l, err := weir.NewLoop(weir.WithDebug(time.Nanosecond), weir.WithErrorHandler(func(err error) { reported = append(reported, err) }))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	root := task.New(future.On(l))
	root.Go("slow one", func(*task.Task) error {
		for began := time.Now(); time.Since(began) <= 0; {
			continue
		}
		l.Stop()
		return nil
	})
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	for _, err := range reported {
		if s := (*weir.SlowError)(nil); errors.As(err, &s) && strings.Contains(s.What, "slow one") {
			return
		}
	}
	t.Errorf("no report names the task: %v", reported)
}
