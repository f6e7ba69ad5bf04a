// Package contract holds tests of the public API, on every backend.
package contract

import (
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// patience bounds a test's waits.
const patience = 30 * time.Second

func quiet() weir.LoopOption {
	return weir.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
}

// onBackends runs f with each backend that this machine has.
func onBackends(t *testing.T, f func(t *testing.T, name string)) {
	t.Helper()
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			if asked := os.Getenv("WEIR_BACKEND"); asked != "" && asked != name {
				t.Skip("WEIR_BACKEND asks for ", asked)
			}
			l, err := weir.NewLoop(weir.WithBackendName(name), quiet())
			if err != nil || l.Backend().Name != name {
				t.Skipf("the system refuses %s: %v", name, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			f(t, name)
		})
	}
}

// turns turns l until cond holds.
func turns(t *testing.T, l *weir.Loop, what string, cond func() bool) {
	t.Helper()
	weirtest.Until(t, l, what, cond)
}
