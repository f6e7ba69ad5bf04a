package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/hosts/internal/hosttest"
)

// terminal opens a pseudo-terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("skipped: no pseudo-terminals: %v", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// TestTerminal: a terminal program downloads while its timer ticks and its bar moves, and
// then nothing wakes it.
func TestTerminal(t *testing.T) {
	master, slave := terminal(t)
	n := hosttest.Size(t)
	cmd := exec.Command(hosttest.Build(t, "."), hosttest.Args(hosttest.Serve(t), n)...)
	cmd.Env = append(os.Environ(), "TERM=xterm-256color", "LC_ALL=C.UTF-8")
	cmd.Stdin = slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	var mu sync.Mutex
	var drawn bytes.Buffer
	go func() {
		var b [4096]byte
		for {
			n, err := master.Read(b[:])
			if err != nil {
				return
			}
			mu.Lock()
			drawn.Write(b[:n])
			mu.Unlock()
		}
	}()
	hosttest.Start(t, cmd).Watch(n, func(downloaded string) {
		if ms, n := hosttest.Field(t, downloaded, "ms"), hosttest.Field(t, downloaded, "draws"); n < 3 || n < ms/300 {
			t.Errorf("the bar was drawn %.0f times in %.0f ms", n, ms)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	// tcell writes only the cells that change, and each of the bar's does.
	if n := bytes.Count(drawn.Bytes(), []byte("█")); n < 78 {
		t.Errorf("the terminal shows %d full cells of a bar of 78", n)
	}
}
