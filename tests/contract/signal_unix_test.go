//go:build unix

package contract

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// TestSignalDisposition: after the last handler of a signal is removed, the
// signal does what it did before: SIGTERM ends the process (behaviour 18). The
// process that it ends is another run of this test.
func TestSignalDisposition(t *testing.T) {
	if os.Getenv("WEIR_TEST_REMOVED") != "" {
		l, err := weir.NewLoop(quiet())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			h, err := l.Signal(syscall.SIGTERM, func(os.Signal) {})
			if err != nil {
				t.Fatal(err)
			}
			h.Remove()
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		turns(t, l, "the end of this process", func() bool { return false })
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestSignalDisposition$", "-test.timeout=20s")
	cmd.Env = append(os.Environ(), "WEIR_TEST_REMOVED=1")
	out, err := cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatalf("the process survived: %v\n%s", err, out)
	}
	if st := exit.Sys().(syscall.WaitStatus); !st.Signaled() || st.Signal() != syscall.SIGTERM {
		t.Errorf("the process ended by %v, want SIGTERM\n%s", err, out)
	}
}

// TestSignalInTurn: a handler runs within a turn of its loop and not between two
// (behaviour 18).
func TestSignalInTurn(t *testing.T) {
	onBackends(t, func(t *testing.T, name string) {
		l, err := weir.NewLoop(weir.WithBackendName(name), quiet())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		inTurn, got := false, 0
		h, err := l.Signal(syscall.SIGUSR2, func(os.Signal) {
			if !inTurn {
				t.Error("the handler ran outside of a turn")
			}
			got++
		})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Remove()
		for i := 1; i <= 3; i++ {
			if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			deadline := time.Now().Add(patience)
			for got < i && time.Now().Before(deadline) {
				inTurn = true
				if err := l.Turn(time.Second); err != nil {
					t.Fatal(err)
				}
				inTurn = false
			}
			if got < i {
				t.Fatalf("%d of %d signals came", got, i)
			}
		}
	})
}

// TestGuestStop: after stop the host gets no turn, a turn that it got before
// does nothing, and nothing remains of the guest (R24, G6).
func TestGuestStop(t *testing.T) {
	onBackends(t, func(t *testing.T, name string) {
		l, err := weir.NewLoop(weir.WithBackendName(name), quiet())
		if err != nil {
			t.Fatal(err)
		}
		weirtest.CheckLeaks(t)
		host := make(chan func(), 1)
		stop, err := l.Guest(func(turn func()) { host <- turn })
		if err != nil {
			t.Fatal(err)
		}
		turn := <-host
		ran := false
		l.Soon(func() { ran = true })
		stop()
		stop()
		turn()
		if ran {
			t.Error("a turn that was given before stop ran after it")
		}
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		if !ran {
			t.Error("the loop no longer makes turns of its own")
		}
		select {
		case <-host:
			t.Error("a turn was given after stop")
		default:
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestShareSignal: the handler of a tenant is called as a callback of the tenant: it is dealt,
// and counted (R69).
func TestShareSignal(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		tn := share(t, l.NewTenant("one"), 1)
		defer tn.Close(nil)
		got := 0
		if _, err := tn.Signal(syscall.SIGUSR1, func(os.Signal) { got++ }); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the signal", func() bool { return got == 1 })
		if n := tn.Stats().Callbacks; n != 1 {
			t.Errorf("Stats counts %d callbacks, want 1", n)
		}
	})
}
