package interop

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// onBackends runs f with a running loop on each backend that this machine has,
// or only on the one that WEIR_BACKEND names.
func onBackends(t *testing.T, f func(t *testing.T, l *weir.Loop)) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			if only := os.Getenv("WEIR_BACKEND"); only != "" && only != name {
				t.Skip("WEIR_BACKEND asks for " + only)
			}
			f(t, startLoop(t, name))
		})
	}
}

// startLoop runs a loop on a goroutine of its own until the test ends.
func startLoop(t testing.TB, backend string) *weir.Loop {
	t.Helper()
	l, err := weir.NewLoop(weir.WithBackendName(backend))
	if err != nil {
		t.Skip(err)
	}
	over := make(chan error, 1)
	go func() { over <- l.Run() }()
	t.Cleanup(func() {
		l.Stop()
		if err := errors.Join(<-over, l.Close()); err != nil {
			t.Error(err)
		}
	})
	if served := l.Backend().Name; served != backend {
		t.Skip("refused by the system: " + served + " serves")
	}
	return l
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// listen listens on a free port; the listener is closed when the test ends.
func listen(t *testing.T, l *weir.Loop) *netconn.Listener {
	t.Helper()
	ln, err := netconn.Call(within(t, 20*time.Second), l, func() (*netconn.Listener, error) {
		return netconn.Listen(l, "tcp", "127.0.0.1:0")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func dial(t *testing.T, l *weir.Loop, a net.Addr) net.Conn {
	t.Helper()
	c, err := netconn.Dial(within(t, 20*time.Second), l, a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pattern is n bytes that tell their position.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8*3 + i>>16*5)
	}
	return p
}
