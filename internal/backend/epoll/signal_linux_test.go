package epoll

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSignals: signals neither end a wait early nor disturb traffic (R25).
func TestSignals(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		stop := storm(t)
		defer stop()
		const d = 20 * time.Millisecond
		for range 5 {
			start := b.Now()
			if got := wait(t, b, d); len(got) != 0 {
				t.Fatalf("%d results from nothing", len(got))
			}
			if took := b.Now() - start; took < d {
				t.Errorf("a wait of %v ended after %v", d, took)
			}
		}
		newEcho(t, b.edge, true, 3).run(t, 300)
	})
}

// storm interrupts the calling thread again and again until stop is called.
func storm(t *testing.T) (stop func()) {
	pid, tid := unix.Getpid(), unix.Gettid()
	var (
		wg   sync.WaitGroup
		quit = make(chan struct{})
		sent int
	)
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				// The runtime uses this one itself and does not mind more.
				if unix.Tgkill(pid, tid, unix.SIGURG) == nil {
					sent++
				}
			}
		}
	})
	return func() {
		close(quit)
		wg.Wait()
		if sent == 0 {
			t.Error("no signal was sent")
		}
	}
}

// TestInjectedEINTR runs part of the contract with every third system call of
// every kind interrupted (R25, bug 22).
func TestInjectedEINTR(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is missing")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.Command(strace, "-f", "-qq", "-o", log, "-e", "trace=network,desc", "--seccomp-bpf",
		"-e", "inject=recvfrom,sendto,sendmsg,accept4,splice,ppoll,epoll_pwait,epoll_pwait2:error=EINTR:when=2+3",
		self, "-test.run", "^TestContract$/^(level|edge)$/^(Echo|HalfClose|Vectored|MultiAccept|AdoptPipe|Splice|CancelMultiRead)$",
		"-test.timeout", "60s")
	out, err := cmd.CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "ptrace") {
			t.Skipf("strace may not trace here: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	trace, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(trace), "(INJECTED)"); n < 100 {
		t.Errorf("only %d calls were interrupted", n)
	}
}
