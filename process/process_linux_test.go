package process

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"golang.org/x/sys/unix"
)

// noChildren fails if this process has a child, a zombie or not.
func noChildren(t *testing.T) {
	t.Helper()
	var left []string
	for end := time.Now().Add(5 * time.Second); ; {
		left = children(t)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("children are left: %v", left)
		}
		// Those of a closed loop are reaped on goroutines, which CheckLeaks waits for.
		_, _ = unix.Poll(nil, 1)
	}
}

func children(t *testing.T) (all []string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil || len(tasks) == 0 {
		t.Skip("the kernel does not say which children there are")
	}
	for _, f := range tasks {
		text, err := os.ReadFile(f)
		if err == nil { // else the thread has ended
			all = append(all, strings.Fields(string(text))...)
		}
	}
	return all
}

// TestPipes: bytes go in, and out, and the end of each direction is its own; once the child
// is reaped it gets no signal (R58).
func TestPipes(t *testing.T) {
	onBackends(t, func(r *rig) {
		for _, make := range []func(weir.Factory, ...weir.StreamOption) *Stream{Pipes, Socket} {
			out := &sink{keep: true}
			s := make(out.factory())
			p := r.start(&Command{Path: "cat", Files: map[int]File{0: s.In(), 1: s.Out()}})
			if _, err := out.t.Write([]byte("hello")); err != nil {
				r.t.Fatal(err)
			}
			r.until("an echo", func() bool { return string(out.got) == "hello" })
			if err := out.t.WriteEOF(); err != nil {
				r.t.Fatal(err)
			}
			if e := r.exit(p); !e.Success() {
				r.t.Fatal(e)
			}
			r.until("the end", func() bool { return out.lost })
			if !out.eof || out.err != nil {
				r.t.Errorf("end of stream %v, lost with %v", out.eof, out.err)
			}
			if err := p.Signal(syscall.SIGTERM); !errors.Is(err, ErrExited) {
				r.t.Errorf("a signal to a reaped child: %v", err)
			}
		}
	})
}

// TestExits: codes and signals are told apart, whoever waits for them.
func TestExits(t *testing.T) {
	onBackends(t, func(r *rig) {
		for _, goroutine := range []bool{false, true} {
			for script, want := range map[string]string{
				"exit 7":       "exit code 7",
				"exit 0":       "exit code 0",
				"kill -9 $$":   "signal: killed",
				"exec sleep 0": "exit code 0",
			} {
				c := sh(script, nil)
				c.goroutine = goroutine
				if got := r.exit(r.start(c)).String(); got != want {
					r.t.Errorf("%s: %s, want %s", script, got, want)
				}
			}
			c := sh("exec sleep 1000", nil) // sh may otherwise leave it behind
			c.goroutine = goroutine
			p := r.start(c)
			if err := p.Signal(syscall.SIGUSR1); err != nil {
				r.t.Fatal(err)
			}
			if e := r.exit(p); e.Signal != syscall.SIGUSR1 {
				r.t.Errorf("after SIGUSR1: %v", e)
			}
		}
	})
}

// TestGrandchild: an exit is reported although a grandchild holds the output, and the
// output goes on (behaviour 62).
func TestGrandchild(t *testing.T) {
	onBackends(t, func(r *rig) {
		out, in := &sink{keep: true}, &sink{}
		so, si := Pipes(out.factory()), Pipes(in.factory())
		// The grandchild ends with descriptor 3.
		p := r.start(sh("(read x <&3; echo late) & exit 3", map[int]File{1: so.Out(), 3: si.In()}))
		if e := r.exit(p); e.Code != 3 {
			r.t.Fatal(e)
		}
		if out.eof || out.lost {
			r.t.Error("the output ended with the child")
		}
		if err := in.t.Close(); err != nil {
			r.t.Fatal(err)
		}
		r.until("the end of the output", func() bool { return out.lost })
		if string(out.got) != "late\n" {
			r.t.Errorf("got %q", out.got)
		}
	})
}

// TestBeforeRun: a child that ends before the loop turns is reaped (behaviour 63).
func TestBeforeRun(t *testing.T) {
	onBackends(t, func(r *rig) {
		var p *Process
		Start(r.s, r.e, sh("exit 4", nil)).OnDone(func(got *Process, err error) {
			if err != nil {
				r.t.Fatal(err)
			}
			p = got
		})
		for n := 0; ; n++ { // until it is a zombie
			if kids := children(r.t); len(kids) == 1 {
				if st, err := os.ReadFile("/proc/" + kids[0] + "/stat"); err == nil && strings.Contains(string(st), ") Z ") {
					break
				}
			}
			if n > 30000 {
				r.t.Fatal("no zombie")
			}
			_, _ = unix.Poll(nil, 1)
		}
		r.until("a process", func() bool { return p != nil })
		if e := r.exit(p); e.Code != 4 {
			r.t.Error(e)
		}
	})
}

// TestPermuted: descriptors are exchanged, doubled and closed (behaviour 64).
func TestPermuted(t *testing.T) {
	onBackends(t, func(r *rig) {
		dir := r.t.TempDir()
		var fds []int
		for i := range 4 {
			f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
			if err != nil {
				r.t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			fds = append(fds, int(f.Fd()))
		}
		// Each of four numbers of ours is another one of these four in the child.
		files := map[int]File{}
		for i := range fds {
			files[fds[i]] = Inherit(fds[(i+1)%4])
		}
		// One that any child would get (bug 23).
		open, err := unix.Open("/dev/null", unix.O_RDWR, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		defer closeAll(open)
		has := map[string]bool{"0": true, "1": true, "2": true, "3": true, "100": true} // 3 is that of ls for the directory
		for _, fd := range fds {
			has[strconv.Itoa(fd)] = true
		}
		out := &sink{keep: true}
		s := Pipes(out.factory())
		files[1], files[2] = s.Out(), s.Out()
		files[100], files[101] = Inherit(fds[2]), Closed()
		script := "echo both >&2; readlink /proc/self/fd/100 >&2;"
		for _, fd := range fds {
			script += fmt.Sprintf("readlink /proc/self/fd/%d;", fd)
		}
		p := r.start(sh(script+"ls /proc/self/fd | LC_ALL=C sort", files))
		r.until("the output", func() bool { return out.lost })
		want := "both\n" + filepath.Join(dir, "2") + "\n"
		for i := range fds {
			want += filepath.Join(dir, strconv.Itoa((i+1)%4)) + "\n"
		}
		want += strings.Join(slices.Sorted(maps.Keys(has)), "\n") + "\n"
		if string(out.got) != want {
			r.t.Errorf("got\n%s\nwant\n%s", out.got, want)
		}
		r.exit(p)
	})
}

// TestStartFails: a failed start says why, and leaves nothing (behaviour 63, bug 17).
func TestStartFails(t *testing.T) {
	onBackends(t, func(r *rig) {
		dir := r.t.TempDir()
		plain, text := filepath.Join(dir, "plain"), filepath.Join(dir, "text")
		if err := os.WriteFile(plain, []byte("x"), 0o600); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(text, []byte("not a program"), 0o700); err != nil { //nolint:gosec // it is to be executable
			r.t.Fatal(err)
		}
		for _, c := range []struct {
			cmd   Command
			op    string
			errno error
			says  string
		}{
			{Command{Path: "no-such-program"}, "find", syscall.ENOENT, "looked in"},
			{Command{Path: "/no/such"}, "exec", syscall.ENOENT, "cannot start /no/such"},
			{Command{Path: plain}, "exec", syscall.EACCES, plain},
			{Command{Path: text}, "exec", syscall.ENOEXEC, "not a program"},
			{Command{Path: "plain", Env: []string{"PATH=" + dir}}, "find", syscall.EACCES, dir},
			{Command{Path: "true", Dir: "/no/such"}, "chdir", syscall.ENOENT, "in /no/such"},
		} {
			a, b, tty := &sink{}, &sink{}, &sink{}
			pipes, sock, term := Pipes(a.factory()), Socket(b.factory()), Terminal(Size{}, tty.factory())
			c.cmd.Files = map[int]File{0: pipes.In(), 1: pipes.Out(), 2: sock.Out(), 5: term.In()}
			p, err := r.try(&c.cmd)
			se, ok := errors.AsType[*StartError](err)
			if p != nil || !ok || se.Op != c.op || !errors.Is(err, c.errno) || !strings.Contains(err.Error(), c.says) {
				r.t.Errorf("%s: %v, %v; want %s, %v, %q", c.cmd.Path, p, err, c.op, c.errno, c.says)
			}
			if a.t != nil || b.t != nil || tty.t != nil {
				r.t.Errorf("%s: a stream was made", c.cmd.Path)
			}
		}
		noChildren(r.t)
	})
}

// TestStop: a child that ignores SIGTERM is killed after the grace, and its group with it.
func TestStop(t *testing.T) {
	onBackends(t, func(r *rig) {
		for _, script := range []string{
			"trap '' TERM; (trap '' TERM; for i in $(seq 1200); do sleep 0.05; done) & echo ready; for i in $(seq 1200); do sleep 0.05; done",
			"(trap '' TERM; for i in $(seq 1200); do sleep 0.05; done) & echo ready; wait", // the child goes, the grandchild would not
		} {
			out := &sink{keep: true}
			c := sh(script, nil)
			c.Group = true
			c.Files = map[int]File{1: Pipes(out.factory()).Out()}
			p := r.start(c)
			r.until("the child", func() bool { return len(out.got) > 0 })
			p.Stop(time.Hour)
			p.Stop(20 * time.Millisecond)
			p.Stop(time.Hour)
			if e := r.exit(p); e.Signal != syscall.SIGKILL && e.Signal != syscall.SIGTERM {
				r.t.Errorf("it ended by %v", e)
			}
			// Both held the pipe.
			r.until("the end of the group", func() bool { return out.lost })
		}
	})
}

// TestClosedLoop: the children of a loop that is closed are ended, or left.
func TestClosedLoop(t *testing.T) {
	for _, at := range []AtClose{End, Leave} {
		for _, goroutine := range []bool{false, true} {
			onBackends(t, func(r *rig) {
				c := sh("echo ready; read x; echo read; exec sleep 0.01", nil)
				out := &sink{keep: true}
				var ours [2]int
				if err := unix.Pipe2(ours[:], unix.O_CLOEXEC); err != nil {
					r.t.Fatal(err)
				}
				c.Group, c.AtClose, c.goroutine = true, at, goroutine
				c.Files = map[int]File{0: Inherit(ours[0]), 1: Pipes(out.factory()).Out()}
				p := r.start(c)
				closeAll(ours[0])
				r.until("the child", func() bool { return len(out.got) > 0 })
				var err error
				p.Exited().OnDone(func(_ Exit, e error) { err = e })
				pid := p.PID()
				if e := r.l.Close(); e != nil {
					r.t.Fatal(e)
				}
				if at == Leave && unix.Kill(pid, 0) != nil {
					r.t.Error("a child that was to be left is gone")
				}
				closeAll(ours[1])
				if p.Signal(syscall.SIGTERM) == nil {
					r.t.Error("a signal after the loop's end")
				}
				_ = err // whether callbacks still run after Close is the loop's affair
			})
		}
	}
}

// TestCloseWhileStarting: a child that was started when nobody wants it any more is
// killed and reaped.
func TestCloseWhileStarting(t *testing.T) {
	onBackends(t, func(r *rig) {
		for range 8 {
			out := &sink{}
			c := sh("sleep 1000", nil)
			c.Group = true
			c.Files = map[int]File{1: Pipes(out.factory()).Out()}
			Start(r.s, r.e, c)
		}
		// Some are being forked then, and the executor has not begun with others.
		r.until("a child", func() bool { return len(children(r.t)) > 0 })
		if err := r.l.Close(); err != nil {
			r.t.Fatal(err)
		}
		r.e.Wait()
		noChildren(r.t)
	})
}

// TestCancelStart: a start that is canceled leaves nothing.
func TestCancelStart(t *testing.T) {
	onBackends(t, func(r *rig) {
		for turns := range 3 {
			out := &sink{}
			c := sh("sleep 1000", nil)
			c.Group = true
			c.Files = map[int]File{1: Pipes(out.factory()).Out()}
			f := Start(r.s, r.e, c)
			if turns > 0 {
				r.l.Turn(0)
			}
			var err error
			done := false
			f.OnDone(func(p *Process, e error) {
				if p != nil {
					p.end()
				}
				err, done = e, true
			})
			f.Cancel()
			r.until("the end of the start", func() bool { return done })
			if err != nil && !errors.Is(err, future.ErrCanceled) {
				r.t.Error(err)
			}
		}
		r.until("the end of all", func() bool { return len(children(r.t)) == 0 })
	})
}

// TestFullExecutor: a start that finds no place says so.
func TestFullExecutor(t *testing.T) {
	onBackends(t, func(r *rig) {
		_ = r.e.Close()
		if _, err := r.try(sh("exit", nil)); !errors.Is(err, executor.ErrClosed) {
			r.t.Error(err)
		}
	})
}

// TestSurroundings: directory, environment, session, limits and the parent's death.
func TestSurroundings(t *testing.T) {
	onBackends(t, func(r *rig) {
		out := &sink{keep: true}
		c := sh("pwd; echo $A$B; ulimit -n; ps -o sid= -p $$ | tr -d ' '; echo $$", nil)
		c.Dir, c.Session = "/", true
		c.Env = []string{"A=1", "B=2", "A=3", "PATH=" + os.Getenv("PATH")}
		c.Limits = []Limit{{Resource: unix.RLIMIT_NOFILE, Soft: 77, Hard: 78}}
		c.DeathSignal = syscall.SIGKILL
		c.Files = map[int]File{1: Pipes(out.factory()).Out()}
		p := r.start(c)
		pid := strconv.Itoa(p.PID())
		r.until("the output", func() bool { return out.lost })
		if want := "/\n32\n77\n" + pid + "\n" + pid + "\n"; string(out.got) != want {
			r.t.Errorf("got %q, want %q", out.got, want)
		}
		if e := r.exit(p); !e.Success() {
			r.t.Error(e)
		}
		bad := sh("exit", nil)
		bad.Limits = []Limit{{Resource: 1000}}
		if _, err := r.try(bad); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "limit") {
			r.t.Errorf("a limit that there is not: %v", err)
		}
		noChildren(r.t)
	})
}

// TestStderr: it is the null device unless it is asked for.
func TestStderr(t *testing.T) {
	onBackends(t, func(r *rig) {
		out := &sink{keep: true}
		p := r.start(sh("readlink /proc/self/fd/0; readlink /proc/self/fd/2", map[int]File{1: Pipes(out.factory()).Out()}))
		r.exit(p)
		r.until("the output", func() bool { return out.lost })
		if want := "/dev/null\n/dev/null\n"; string(out.got) != want {
			r.t.Errorf("got %q", out.got)
		}
	})
}

// TestTerminal: the child has a terminal that controls it, with our size, which can be
// changed, and 20 KB that it wrote last come before the end (behaviour 60, bug 10).
func TestTerminal(t *testing.T) {
	onBackends(t, func(r *rig) {
		out := &sink{keep: true}
		s := Terminal(Size{Rows: 11, Columns: 22}, out.factory())
		p := r.start(sh("trap 'stty size' WINCH; stty -opost; stty size; tty </dev/tty >/dev/null && echo controls; while ! read x; do :; done; head -c 20480 /dev/zero | tr '\\0' x; exit 5",
			map[int]File{0: s.In(), 1: s.Out(), 2: s.Out()}))
		r.until("the size", func() bool { return strings.Contains(string(out.got), "11 22\ncontrols\n") })
		if err := p.Resize(Size{Rows: 33, Columns: 44}); err != nil {
			r.t.Fatal(err)
		}
		r.until("the new size", func() bool { return strings.Contains(string(out.got), "33 44\n") })
		before := len(out.got)
		out.t.PauseReading()
		if _, err := out.t.Write([]byte("\n")); err != nil {
			r.t.Fatal(err)
		}
		if !out.t.CanWriteEOF() {
			out.t.ResumeReading()
		}
		r.until("the end", func() bool { return out.lost })
		if !out.eof || out.err != nil {
			r.t.Errorf("end of stream %v, lost with %v", out.eof, out.err)
		}
		if n := strings.Count(string(out.got[before:]), "x"); n != 20480 {
			r.t.Errorf("%d of 20480 bytes came before the end", n)
		}
		if e := r.exit(p); e.Code != 5 {
			r.t.Error(e)
		}
		if err := p.Resize(Size{Rows: 1, Columns: 1}); !errors.Is(err, ErrExited) {
			r.t.Error(err)
		}
	})
}

// TestRaw: a terminal is set raw and back.
func TestRaw(t *testing.T) {
	master, slave, tty, err := openTerminal(Size{Rows: 5, Columns: 6})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(master, slave, tty)
	before, err := unix.IoctlGetTermios(slave, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	restore, err := Raw(slave)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := unix.IoctlGetTermios(slave, unix.TCGETS); err != nil || raw.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 {
		t.Errorf("it is not raw: %+v, %v", raw, err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if after, err := unix.IoctlGetTermios(slave, unix.TCGETS); err != nil || *after != *before {
		t.Errorf("it is %+v, was %+v, %v", after, before, err)
	}
	if size, err := WindowSize(slave); err != nil || size != (Size{Rows: 5, Columns: 6}) {
		t.Error(size, err)
	}
	if IsTerminal(int(os.Stdin.Fd())+1000) || !IsTerminal(slave) {
		t.Error("IsTerminal")
	}
}

// TestOtherCodeReaps: where other code has taken the child, no signal is sent by a number
// that may be another's by now; by pidfd, the kernel knows which group is meant.
func TestOtherCodeReaps(t *testing.T) {
	onBackends(t, func(r *rig) {
		for _, goroutine := range []bool{false, true} {
			out, ctl := &sink{keep: true}, &sink{}
			so, sc := Pipes(out.factory()), Pipes(ctl.factory())
			// The grandchild is in the group, and lives until we close descriptor 3.
			c := sh("(echo ready; read x <&3; echo lived) & exec sleep 1000", map[int]File{1: so.Out(), 3: sc.In()})
			c.Group, c.goroutine = true, goroutine
			p := r.start(c)
			r.until("the grandchild", func() bool { return len(out.got) > 0 })
			if err := p.Signal(syscall.SIGKILL); err != nil {
				r.t.Fatal(err)
			}
			var ws syscall.WaitStatus
			if _, err := retry(func() (int, error) { return syscall.Wait4(p.PID(), &ws, 0, nil) }); err != nil {
				r.t.Fatal(err)
			}
			if err := p.Signal(syscall.SIGTERM); !errors.Is(err, ErrExited) {
				r.t.Errorf("goroutine %v: Signal: %v", goroutine, err)
			}
			ch := p.child.(*child)
			fd := ch.pidfd
			ch.pidfd = -1 // as before Linux 6.9
			if err := p.SignalGroup(syscall.SIGKILL); !errors.Is(err, ErrExited) {
				r.t.Errorf("goroutine %v: SignalGroup: %v", goroutine, err)
			}
			p.Stop(0)
			if e := r.exit(p); !errors.Is(e.Err, ErrUnknownExit) {
				r.t.Errorf("goroutine %v: %v", goroutine, e)
			}
			closeAll(fd)
			if err := ctl.t.Close(); err != nil {
				r.t.Fatal(err)
			}
			r.until("the end of the output", func() bool { return out.lost })
			if string(out.got) != "ready\nlived\n" {
				r.t.Errorf("goroutine %v: the group got a signal by a number: %q", goroutine, out.got)
			}
		}
	})
}

// TestGroupByPidfd: the signals of a group reach what the child has left in it.
func TestGroupByPidfd(t *testing.T) {
	onBackends(t, func(r *rig) {
		for _, goroutine := range []bool{false, true} {
			out := &sink{keep: true}
			c := sh("(trap 'echo heard; exit' USR1; echo ready; while :; do sleep 0.01; done) & trap '' USR1; wait; exit 6", map[int]File{1: Pipes(out.factory()).Out()})
			c.Group, c.goroutine = true, goroutine
			p := r.start(c)
			r.until("the grandchild", func() bool { return len(out.got) > 0 })
			if err := p.SignalGroup(syscall.SIGUSR1); err != nil {
				r.t.Fatal(err)
			}
			r.exit(p)
			r.until("the end of the output", func() bool { return out.lost })
			if string(out.got) != "ready\nheard\n" {
				r.t.Errorf("goroutine %v: got %q", goroutine, out.got)
			}
		}
	})
}

// TestQueuedStart: a start that waits for a place does not happen once its loop is closed.
func TestQueuedStart(t *testing.T) {
	onBackends(t, func(r *rig) {
		one := executor.New("one", 1, 8)
		gate := make(chan struct{})
		if err := executor.Do(one, r.s, func() { <-gate }, func(error) {}); err != nil {
			r.t.Fatal(err)
		}
		mark := filepath.Join(r.t.TempDir(), "started")
		Start(r.s, one, &Command{Path: "touch", Args: []string{"touch", mark}})
		if err := r.l.Close(); err != nil {
			r.t.Fatal(err)
		}
		close(gate)
		one.Wait()
		noChildren(r.t)
		if _, err := os.Stat(mark); err == nil {
			r.t.Error("it was started after the loop's Close")
		}
	})
}

// TestCommandCopied: a command that changes while its start waits for a place, or goes on
// although the loop is closed, is started as it was.
func TestCommandCopied(t *testing.T) {
	onBackends(t, func(r *rig) {
		r.e = executor.New("one", 1, 8)
		gate := make(chan struct{})
		if err := executor.Do(r.e, r.s, func() { <-gate }, func(error) {}); err != nil {
			r.t.Fatal(err)
		}
		out := &sink{keep: true}
		c := sh(`echo "$0 $A"`, map[int]File{1: Pipes(out.factory()).Out()})
		c.Env = []string{"A=then", "PATH=" + os.Getenv("PATH")}
		f := Start(r.s, r.e, c)
		c.Path, c.Args[2], c.Env[0], c.Files[1] = "false", "echo changed", "A=now", Closed()
		close(gate)
		r.until("the output", func() bool { return out.lost })
		if _, err, _ := f.Result(); err != nil || string(out.got) != "sh then\n" {
			r.t.Errorf("%q, %v", out.got, err)
		}
		delete(c.Files, 1)
	})
}

// TestNoPlace: without an executor, and with a full one, a start says so.
func TestNoPlace(t *testing.T) {
	onBackends(t, func(r *rig) {
		e := r.e
		r.e = nil
		if _, err := r.try(sh("exit", nil)); err == nil || !strings.Contains(err.Error(), "cannot start sh: starting a program blocks, so it needs an executor") {
			r.t.Errorf("no executor: %v", err)
		}
		r.e = executor.New("small", 1, 1)
		gate := make(chan struct{})
		for range 2 {
			if err := executor.Do(r.e, r.s, func() { <-gate }, func(error) {}); err != nil {
				r.t.Fatal(err)
			}
		}
		_, err := r.try(sh("exit", nil))
		se, ok := errors.AsType[*StartError](err)
		if !ok || !se.Temporary() || !errors.Is(err, executor.ErrFull) || !strings.Contains(err.Error(), "executor small is full: 1 run and 1 wait; try again") {
			r.t.Errorf("a full executor: %v", err)
		}
		close(gate)
		r.e.Wait()
		r.e = e
	})
}

// TestWhyNotStarted: each failure says what is in the way, and whose it is: the
// directory's or the program's.
func TestWhyNotStarted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("running programs as other users takes root")
	}
	r := newRig(t, "epoll")
	base := t.TempDir()
	if err := os.Chmod(base, 0o755); err != nil { //nolint:gosec // others are to get in
		t.Fatal(err)
	}
	for d := filepath.Dir(base); d != "/"; d = filepath.Dir(d) {
		st, err := os.Stat(d)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm()&0o001 == 0 {
			if err := os.Chmod(d, st.Mode().Perm()|0o001); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.Chmod(d, st.Mode().Perm()) }()
		}
	}
	dir := func(name string, mode os.FileMode) string {
		d := filepath.Join(base, name)
		if err := os.Mkdir(d, mode); err != nil {
			t.Fatal(err)
		}
		return d
	}
	file := func(path, text string, mode os.FileMode) string {
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	shut, open := dir("shut", 0o700), dir("open", 0o755)
	script := file(filepath.Join(open, "script"), "#!/no/such/interpreter -x\n", 0o755)
	own := file(filepath.Join(open, "own"), "#!/bin/sh\n", 0o700)
	inside := file(filepath.Join(shut, "inside"), "#!/bin/sh\n", 0o755)
	other := &Credential{UID: 12345, GID: 12345}
	for _, c := range []struct {
		cmd   Command
		op    string
		errno error
		says  string
	}{
		{Command{Path: "/bin/true", Dir: shut, Credential: other}, "chdir", syscall.EACCES, "cannot start /bin/true in " + shut + ": permission denied (user 12345 may not enter " + shut + " (chmod +x))"},
		{Command{Path: "/bin/true", Dir: own}, "chdir", syscall.ENOTDIR, "that is not a directory"},
		{Command{Path: "/bin/true", Dir: filepath.Join(base, "none")}, "chdir", syscall.ENOENT, "the directory does not exist"},
		{Command{Path: inside, Credential: other}, "exec", syscall.EACCES, "user 12345 may not enter " + shut},
		{Command{Path: own, Dir: open, Credential: other}, "exec", syscall.EACCES, "user 12345 may not execute it (chmod +x)"},
		{Command{Path: own, Dir: shut, Credential: other}, "chdir", syscall.EACCES, "may not enter " + shut},
		{Command{Path: script}, "exec", syscall.ENOENT, "the file is there, but the interpreter of its first line, /no/such/interpreter, is not"},
		{Command{Path: open}, "exec", syscall.EACCES, "it is a directory"},
		{Command{Path: "/bin/true/x"}, "exec", syscall.ENOTDIR, "a part of its path is a file"},
		{Command{Path: "/no/such"}, "exec", syscall.ENOENT, "is it installed?"},
		{Command{Path: "/bin/true", Files: map[int]File{5: Inherit(900)}}, "exec", syscall.EBADF, "is not open"},
		{Command{Path: "/bin/true", Args: []string{"true", strings.Repeat("x", 1<<20)}}, "exec", syscall.E2BIG, "longer than the system allows"},
	} {
		_, err := r.try(&c.cmd)
		se, ok := errors.AsType[*StartError](err)
		if !ok || se.Op != c.op || !errors.Is(err, c.errno) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %s, %v, %q", c.cmd.Path, err, c.op, c.errno, c.says)
		}
	}
	r.close()
	noChildren(t)
}

// TestMayNot: what takes privileges says which; the test runs itself without them.
func TestMayNot(t *testing.T) {
	if os.Getenv("WEIR_TEST_MAY_NOT") == "" {
		if os.Getuid() != 0 {
			t.Skip("giving up privileges takes root")
		}
		r := newRig(t, "epoll")
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(exe) // its directory is root's
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }() // it was only read
		out := &sink{keep: true}
		p := r.start(&Command{
			Path: "/proc/self/fd/7", Args: []string{exe, "-test.run=^TestMayNot$", "-test.v"}, Dir: "/",
			Env:        []string{"WEIR_TEST_MAY_NOT=1", "PATH=" + os.Getenv("PATH"), "TMPDIR=/tmp"},
			Files:      map[int]File{1: Pipes(out.factory()).Out(), 7: Inherit(int(f.Fd()))},
			Credential: &Credential{UID: 12345, GID: 12345},
		})
		e := r.exit(p)
		r.until("the output", func() bool { return out.lost })
		if !e.Success() || !strings.Contains(string(out.got), "PASS: TestMayNot") {
			t.Errorf("%v\n%s", e, out.got)
		}
		r.close()
		return
	}
	r := newRig(t, "epoll")
	_, err := r.try(&Command{Path: "/bin/true", Credential: &Credential{UID: 1, GID: 1}})
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "cannot start /bin/true: operation not permitted (to run it as user 1 takes root's privileges (CAP_SETUID and CAP_SETGID))") {
		t.Errorf("another user: %v", err)
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	_, err = r.try(&Command{Path: "/bin/true", Limits: []Limit{{Resource: unix.RLIMIT_NOFILE, Soft: now.Max + 1, Hard: now.Max + 1}}})
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_RESOURCE") {
		t.Errorf("a higher limit: %v", err)
	}
	r.close()
}

// TestTenantClosed: children of a tenant end with it, or are left, as AtClose says, and
// Exited fails with its reason; so does a start under way (R70).
func TestTenantClosed(t *testing.T) {
	bankrupt := errors.New("bankrupt")
	for _, at := range []AtClose{End, Leave} {
		for _, goroutine := range []bool{false, true} {
			onBackends(t, func(r *rig) {
				tn := r.l.NewTenant("one")
				c := sh("echo ready; read x; exec sleep 0.01", nil)
				out := &sink{keep: true}
				var ours [2]int
				if err := unix.Pipe2(ours[:], unix.O_CLOEXEC); err != nil {
					r.t.Fatal(err)
				}
				c.Group, c.AtClose, c.goroutine, c.Tenant = true, at, goroutine, tn
				c.Files = map[int]File{0: Inherit(ours[0]), 1: Pipes(out.factory()).Out()}
				p := r.start(c)
				closeAll(ours[0])
				r.until("the child", func() bool { return len(out.got) > 0 })
				if n := tn.Stats().Connections; n != 1 {
					r.t.Errorf("the tenant counts %d connections, want the child's output", n)
				}
				var failed, late error
				p.Exited().OnDone(func(_ Exit, err error) { failed = err })
				slow := sh("sleep 1000", nil)
				slow.Group, slow.Tenant = true, tn
				Start(r.s, r.e, slow).OnDone(func(_ *Process, err error) { late = err })
				pid := p.PID()
				tn.Close(bankrupt)
				r.until("the ends", func() bool { return failed != nil && late != nil })
				for _, err := range []error{failed, late} {
					if !errors.Is(err, bankrupt) {
						r.t.Errorf("ended with %v", err)
					}
				}
				if at == Leave && unix.Kill(pid, 0) != nil {
					r.t.Error("a child that was to be left is gone")
				}
				if p.Signal(syscall.SIGTERM) == nil || p.Running() {
					r.t.Error("a signal after the tenant's end")
				}
				closeAll(ours[1])
				noChildren(r.t)
			})
		}
	}
}
