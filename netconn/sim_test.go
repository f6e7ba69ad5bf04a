package netconn_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// simLoop runs a loop of a simulated host on a goroutine, until stop.
func simLoop(t testing.TB, opts ...weirtest.SimOption) (l *weir.Loop, stop func()) {
	s := weirtest.NewSim(t, 1, append(opts, weirtest.WithGoroutines())...)
	l = s.Host("host").Loop()
	over := make(chan error, 1)
	go func() { over <- l.Run() }()
	return l, func() {
		l.Stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}
}

// TestConnSim is the conformance test over the simulator's network. Its deadlines are
// in real time, as those of a Conn are; the world's clock only counts latencies.
func TestConnSim(t *testing.T) {
	for _, c := range []struct {
		name string
		opts []weirtest.SimOption
	}{
		{"plain", nil},
		{"cut", []weirtest.SimOption{weirtest.WithFaults(weirtest.Faults{CutRead: 0.2, CutWrite: 0.2, CutWire: 0.2, Defer: 0.2, Again: 0.2, Shuffle: true})}},
	} {
		t.Run(c.name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				l, stop := simLoop(t, c.opts...)
				t.Cleanup(stop)
				c1, c2 := dialled("tcp")(t, l, l)
				return c1, c2, func() {
					_ = c1.Close()
					_ = c2.Close()
				}, nil
			})
		})
	}
}

// TestSynctest shows goroutine code and a simulated loop in a synctest bubble:
// an hour's deadline takes no time, and the bubble's end finds no goroutine left.
func TestSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := simLoop(t)
		defer stop()
		a, b := dialled("tcp")(t, l, l)
		began := time.Now()
		if err := a.SetReadDeadline(began.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v, want a timeout", err)
		}
		if took := time.Since(began); took != time.Hour {
			t.Errorf("the deadline came after %v, want 1h0m0s exactly", took)
		}
		if err := a.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Minute, func() { _, _ = b.Write([]byte("late")) })
		buf := make([]byte, 4)
		if _, err := io.ReadFull(a, buf); err != nil || string(buf) != "late" {
			t.Errorf("got %q, %v", buf, err)
		}
		_ = a.Close()
		if _, err := b.Read(buf); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want EOF", err)
		}
		_ = b.Close()
	})
}
