//go:build unix

package process

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"golang.org/x/sys/unix"
)

// resume lets a stopped process go on.
const resume = syscall.SIGCONT

// child is a program that runs, or a zombie. Until it is reaped, pid and group belong
// to no other.
type child struct {
	pid   int
	group int    // its own process group; 0: it is in ours
	pidfd int    // -1: the kernel has none
	tty   int    // leads to its terminal without keeping it open; -1: none
	path  string // as it was found
	ends  []ends
	freed chan struct{} // closed when the thread that started it may end; nil: any may
	ended ended
}

var _ program = (*child)(nil)

func (c *child) id() int                { return c.pid }
func (c *child) found() string          { return c.path }
func (c *child) streams() []ends        { return c.ends }
func (c *child) hasTerminal() bool      { return c.tty >= 0 }
func (c *child) resize(size Size) error { return resizePath(c.tty, size) }

func (c *child) watch(p *Process) {
	if c.pidfd >= 0 {
		var err error
		if p.watch, err = p.loop.Watch(c.pidfd, weir.EventRead, func(weir.Events) { p.reap() }); err == nil {
			return
		}
	}
	wake := p.hook.wake
	go func() { // not simulated: it waits for a process of the system
		c.awaitExit()
		wake()
	}()
}

// spawning is a child that is being started.
type spawning struct {
	c      *Command
	ends   []ends
	theirs []int // to be closed once it has them
	tty    int
	attr   syscall.ProcAttr
	sys    syscall.SysProcAttr
}

// spawn starts a program. It blocks until exec has succeeded or failed.
func spawn(c *Command) (program, error) {
	path, err := find(c)
	if err != nil {
		return nil, err
	}
	warm(c, path)
	w := &spawning{c: c, tty: -1}
	ch, err := w.start(path)
	closeAll(w.theirs...)
	if err != nil {
		closeAll(w.tty)
		for _, e := range w.ends {
			e.close()
		}
		return nil, err
	}
	ch.ends, ch.tty, ch.path = w.ends, w.tty, path
	if c.goroutine || c.noPidfd {
		closeAll(ch.pidfd)
		ch.pidfd = -1
	}
	if ch.pidfd < 0 && !c.goroutine {
		ch.pidfd = openPidfd(ch.pid)
	}
	return ch, nil
}

func (w *spawning) start(path string) (*child, error) {
	c := w.c
	if err := w.table(path); err != nil {
		return nil, err
	}
	args := c.Args
	if args == nil {
		args = []string{c.Path}
	}
	w.attr.Dir, w.attr.Env, w.attr.Sys = c.Dir, environment(c.Env), &w.sys
	if c.Credential != nil {
		w.sys.Credential = &syscall.Credential{Uid: c.Credential.UID, Gid: c.Credential.GID, Groups: c.Credential.Groups}
	}
	if c.Session {
		w.sys.Setsid = true
	}
	w.sys.Setpgid = c.Group && !w.sys.Setsid
	ch := &child{pidfd: -1, tty: -1}
	if err := w.fork(path, args, ch); err != nil {
		if e, ok := errors.AsType[*StartError](err); ok {
			return nil, e
		}
		return nil, c.explain(path, err)
	}
	if w.sys.Setsid || w.sys.Setpgid {
		ch.group = ch.pid
	}
	return ch, nil
}

// onThread calls f on a goroutine that keeps its thread until free is closed.
func onThread(free <-chan struct{}, f func() error) error {
	done := make(chan error)
	go func() { // not simulated: it starts a process of the system
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := f()
		done <- err
		if err == nil {
			<-free
		}
	}()
	return <-done
}

// table makes the streams and the child's descriptors.
func (w *spawning) table(path string) error {
	c := w.c
	fail := func(op string, err error) error {
		e := &StartError{Op: op, Path: path, Err: err, Hint: hintFor(err)}
		switch {
		case op == "terminal" && errors.Is(err, syscall.ENOENT):
			e.Hint = "is devpts mounted at /dev/pts?"
		case op == "terminal" && errors.Is(err, syscall.ENOSPC):
			e.Hint = "there are as many terminals as may be (kernel.pty.max)"
		}
		return e
	}
	made := map[*Stream][2]int{} // the child's ends: what it reads, what it writes
	w.attr.Files = make([]uintptr, c.numbers())
	null := -1
	for n := range w.attr.Files {
		f, here := c.Files[n]
		if !here && n > 2 {
			f = Closed()
		}
		fd := -1
		switch f.how {
		case fromNothing:
		case fromOurs:
			fd = f.fd
		case fromNull:
			if null < 0 {
				var err error
				if null, err = openRetry(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC); err != nil {
					return fail("open "+os.DevNull, err)
				}
				w.theirs = append(w.theirs, null)
			}
			fd = null
		case fromStream:
			if _, is := made[f.stream]; !is {
				theirs, op, err := w.make(f.stream)
				if err != nil {
					return fail(op, err)
				}
				made[f.stream] = theirs
			}
			fd = made[f.stream][0]
			if f.out {
				fd = made[f.stream][1]
			}
			if f.stream.kind == terminal && !w.sys.Setctty {
				w.sys.Setsid, w.sys.Setctty, w.sys.Ctty = true, true, n
			}
		}
		w.attr.Files[n] = uintptr(fd) // of -1: none
	}
	return nil
}

// make opens a stream.
func (w *spawning) make(s *Stream) (theirs [2]int, op string, err error) {
	e := ends{stream: s, r: -1, w: -1}
	theirs = [2]int{-1, -1}
	var fds [2]int
	switch s.kind {
	case socket:
		if fds, err = pair(); err == nil {
			e.r, e.w, theirs = fds[0], fds[0], [2]int{fds[1], fds[1]}
		}
		op = "socketpair"
	case terminal:
		var tty int
		if fds[0], fds[1], tty, err = openTerminal(s.size); err == nil {
			e.r, e.w, theirs, w.tty = fds[0], fds[0], [2]int{fds[1], fds[1]}, tty
			if s.noEcho {
				err = noEcho(fds[1])
			}
		}
		op = "terminal"
	case pipes:
		for _, f := range w.c.Files { // any order: each of the two is made once
			if f.stream != s || f.out && e.r >= 0 || !f.out && e.w >= 0 {
				continue
			}
			if fds, err = pipe(); err != nil {
				break
			}
			if f.out {
				e.r, theirs[1] = fds[0], fds[1]
			} else {
				theirs[0], e.w = fds[0], fds[1]
			}
		}
		op = "pipe"
	}
	w.ends = append(w.ends, e)
	w.theirs = append(w.theirs, theirs[0])
	if theirs[1] != theirs[0] {
		w.theirs = append(w.theirs, theirs[1])
	}
	for _, fd := range []int{e.r, e.w} {
		if fd >= 0 && err == nil {
			err = unix.SetNonblock(fd, true)
		}
	}
	return theirs, op, err
}

func (e *ends) close() {
	closeAll(e.r)
	if e.w != e.r {
		closeAll(e.w)
	}
	e.r, e.w = -1, -1
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd) // there is nothing to do about an error
		}
	}
}

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if err != unix.EINTR { //nolint:errorlint // an errno
			return fd, err
		}
	}
}

// environment is that of a child.
func environment(env []string) []string {
	if env == nil {
		return os.Environ()
	}
	seen := map[string]bool{}
	var out []string
	for _, kv := range slices.Backward(env) {
		key, _, _ := strings.Cut(kv, "=")
		if !seen[key] {
			seen[key] = true
			out = append(out, kv)
		}
	}
	slices.Reverse(out)
	return out
}

// find is the path of a command's program.
func find(c *Command) (string, error) {
	if strings.Contains(c.Path, "/") {
		return c.Path, nil
	}
	dirs := os.Getenv("PATH")
	for _, kv := range c.Env {
		if v, is := strings.CutPrefix(kv, "PATH="); is {
			dirs = v
		}
	}
	e := &StartError{Op: "find", Path: c.Path, Err: syscall.ENOENT}
	for _, dir := range filepath.SplitList(dirs) {
		if !filepath.IsAbs(dir) {
			continue // what is found would depend on where we are
		}
		e.Tried = append(e.Tried, dir)
		path := filepath.Join(dir, c.Path)
		st, err := os.Stat(path)
		switch {
		case err == nil && st.IsDir():
		case err == nil && unix.Access(path, unix.X_OK) == nil:
			return path, nil
		case err == nil, errors.Is(err, fs.ErrPermission):
			e.Err = syscall.EACCES
		}
	}
	return "", e
}

// signal sends a signal to the child.
func (c *child) signal(sig syscall.Signal) error {
	if err := sendByFD(c.pidfd, sig, false); !errors.Is(err, errors.ErrUnsupported) {
		return gone(err)
	}
	return gone(c.ended.unlessReaped(c.pid, func() error { return unix.Kill(c.pid, sig) }))
}

// signalGroup sends a signal to the child's group. The kernel gives the group's number to
// no other process or group while the child, a zombie included, is in it.
func (c *child) signalGroup(sig syscall.Signal) error {
	if c.group == 0 {
		return c.signal(sig)
	}
	if err := sendByFD(c.pidfd, sig, true); !errors.Is(err, errors.ErrUnsupported) {
		return gone(err)
	}
	return gone(c.ended.unlessReaped(c.pid, func() error { return unix.Kill(-c.group, sig) }))
}

// gone makes ErrExited of what the kernel says of a process that other code has reaped.
func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return ErrExited
	}
	return err
}

// discard kills a child that no one wants, and closes what leads to it.
func (c *child) discard() {
	for i := range c.ends {
		c.ends[i].close()
	}
	_ = c.signalGroup(syscall.SIGKILL) // it may have ended
	c.leave()
}

// leave has a goroutine reap a child whenever it ends.
func (c *child) leave() {
	go func() { // not simulated: it waits for a process of the system
		c.awaitExit()
		_, _ = c.reap() // no one asks how it ended
		c.letGo()
	}()
}

// letGo closes what is kept for a running child, which has been reaped.
func (c *child) letGo() {
	closeAll(c.pidfd, c.tty)
	c.pidfd, c.tty = -1, -1
	if c.freed != nil {
		close(c.freed)
		c.freed = nil
	}
}

// exitOf reads a wait status.
func exitOf(ws syscall.WaitStatus, ru *syscall.Rusage) Exit {
	e := Exit{Code: ws.ExitStatus()}
	if ws.Signaled() {
		e.Signal, e.Core = ws.Signal(), ws.CoreDump()
	}
	e.User, e.System = time.Duration(ru.Utime.Nano()), time.Duration(ru.Stime.Nano())
	if runtime.GOOS == "linux" {
		e.MaxRSS = int64(ru.Maxrss) << 10 //nolint:unconvert // it is an int32 elsewhere
	}
	return e
}
