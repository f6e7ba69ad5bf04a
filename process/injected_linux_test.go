package process

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/executor"
	"golang.org/x/sys/unix"
)

var injected = flag.Int("injected", 0, "TestInjected has the 1st, 2nd … call fail up to this one, each in a run of its own; 0: some of them")

// injection is a system call that is made to fail.
type injection struct {
	call, errno string
	err         syscall.Errno
	ops         []string // what the start's error may say has failed; none: the start goes on
	child       bool     // the child makes the call, so each child counts from the first
}

// TestInjected has strace make one call after another fail, once in a run of many starts, or
// every third time. A start fails with the errno and what was called, or goes on without the
// call; the loop goes on, the starts before and after it succeed, and no descriptor, zombie or
// goroutine is left.
func TestInjected(t *testing.T) {
	exe, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	fork, pipe := []string{"fork"}, []string{"pipe", "fork"} // fork's error comes through a pipe
	for _, c := range []injection{
		{"clone", "EAGAIN", syscall.EAGAIN, fork, false},
		{"clone", "ENOMEM", syscall.ENOMEM, fork, false},
		{"clone", "EMFILE", syscall.EMFILE, fork, false}, // for the pidfd
		{"pipe2", "EMFILE", syscall.EMFILE, pipe, false},
		{"pipe2", "ENFILE", syscall.ENFILE, pipe, false},
		{"pipe2", "ENOMEM", syscall.ENOMEM, pipe, false},
		{"pipe2", "EAGAIN", syscall.EAGAIN, pipe, false},
		{"pidfd_open", "EMFILE", syscall.EMFILE, nil, false},
		{"pidfd_open", "ENOMEM", syscall.ENOMEM, nil, false},
		{"pidfd_open", "EAGAIN", syscall.EAGAIN, nil, false},
		{"socketpair", "ENFILE", syscall.ENFILE, []string{"socketpair"}, false},
		{"socketpair", "ENOMEM", syscall.ENOMEM, []string{"socketpair"}, false},
		{"dup3", "EMFILE", syscall.EMFILE, fork, true},
		{"execve", "ENOMEM", syscall.ENOMEM, fork, true},
		{"execve", "E2BIG", syscall.E2BIG, []string{"exec"}, true},
	} {
		whens := []string{"1", "50", "3+3"}
		if c.child {
			whens = []string{"1"} // each child is one more, and execs once
		} else if *injected > 0 {
			whens = []string{"3+3"}
			for n := range *injected {
				whens = append(whens, strconv.Itoa(n+1))
			}
		}
		for _, when := range whens {
			t.Run(c.call+"/"+c.errno+"/"+when, func(t *testing.T) { c.run(t, exe, when) })
		}
	}
}

// run starts programs while the call fails as when says.
func (c *injection) run(t *testing.T, strace, when string) {
	// The loop, and its inline executor, make every call on one thread, whose calls strace
	// counts: what Go's runtime does on other threads it does not see.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r := newRig(t, "epoll")
	r.e = executor.Inline("start")
	starts := 60
	if c.child || when == "1" {
		starts = 5
	} else if n, err := strconv.Atoi(when); err == nil {
		starts = n + 3
	}
	if c.call == "pidfd_open" {
		starts *= 2 // every other start makes it
	}
	ticks := 0
	var tick func()
	tick = func() { ticks++; r.l.After(time.Millisecond, tick) }
	tick()
	stop := c.trace(t, strace, when)
	failed, before := 0, 0
	for i := range starts {
		a, b := &sink{}, &sink{}
		pipes, sock := Pipes(a.factory()), Socket(b.factory())
		p, err := r.try(&Command{Path: "/bin/true", Files: map[int]File{0: pipes.In(), 1: pipes.Out(), 5: sock.In()}, noPidfd: i%2 == 1})
		if err != nil {
			failed++
			c.check(t, err)
			if a.t != nil || b.t != nil {
				t.Error("a stream was made of what did not start")
			}
			continue
		}
		if e := r.exit(p); !e.Success() {
			t.Error(e)
		}
		r.until("the ends", func() bool { return a.lost && b.lost })
	}
	before = ticks
	r.until("the loop to go on", func() bool { return ticks > before })
	switch n := stop(); {
	case n == 0:
		t.Errorf("%s did not fail once in %d starts", c.call, starts)
	case c.child && failed != starts, !c.child && c.ops != nil && failed != n, c.ops == nil && failed > 0:
		t.Errorf("%d of %d starts failed, and %d calls", failed, starts, n)
	}
	r.close()
	noChildren(t)
}

// check looks at the error of a start.
func (c *injection) check(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*StartError](err)
	switch {
	case !ok || !errors.Is(err, c.err) || !slices.Contains(c.ops, e.Op):
		t.Errorf("%#v: %v, want %v of one of %q", err, err, c.err, c.ops)
	case !strings.Contains(err.Error(), c.err.Error()) || e.Hint == "":
		t.Errorf("it says neither what failed nor what to do: %v", err)
	case e.Op != "exec" && !strings.Contains(err.Error(), e.Op):
		t.Errorf("it does not say what was called: %v", err)
	}
}

// trace has strace make the call of this thread fail from now on. stop ends that, and returns
// how many have failed.
func (c *injection) trace(t *testing.T, strace, when string) (stop func() int) {
	t.Helper()
	// Where Yama lets only parents trace, our own child may (it has no effect elsewhere).
	_ = unix.Prctl(unix.PR_SET_PTRACER, ^uintptr(0), 0, 0, 0)
	log := filepath.Join(t.TempDir(), "log")
	args := []string{"-o", log, "-e", "trace=" + c.call, "-e", fmt.Sprintf("inject=%s:error=%s:when=%s", c.call, c.errno, when), "-p", strconv.Itoa(unix.Gettid())}
	if c.child {
		args = append([]string{"-f"}, args...)
	}
	cmd := exec.Command(strace, args...)
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	waited := false
	t.Cleanup(func() { // a test that fails ends it too, or it would trace the thread of later ones
		if !waited {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	line, _ := bufio.NewReader(stderr).ReadString('\n') // what ended before it is told below
	if !strings.Contains(line, "attached") {
		_ = cmd.Wait()
		waited = true
		t.Skip("strace cannot do it here: ", line)
	}
	return func() int {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended, which the log shows
		_ = cmd.Wait()                       // by the signal
		waited = true
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "(INJECTED)")
	}
}
