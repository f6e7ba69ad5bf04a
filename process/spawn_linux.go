package process

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

func pair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

func pipe() (fds [2]int, err error) {
	err = unix.Pipe2(fds[:], unix.O_CLOEXEC)
	return fds, err
}

// ended has nothing to know here: the kernel can be asked without reaping.
type ended struct{}

// unlessReaped calls f if the child has not been reaped, not even by other code. Only
// other code could reap it between the question and f.
func (ended) unlessReaped(pid int, f func() error) error {
	_, err := retry(func() (int, error) {
		return 0, unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	})
	if err != nil {
		return ErrExited
	}
	return f()
}

// openPidfd opens a pidfd of a child that has not been reaped, where fork returned none
// (before Linux 5.2, some emulators); -1: there is none to be had, and a goroutine waits.
func openPidfd(pid int) int {
	fd, err := retry(func() (int, error) { return unix.PidfdOpen(pid, 0) })
	if err != nil {
		return -1
	}
	return fd
}

// sendByFD sends a signal to a process, or its group (Linux 6.9), by what no recycled
// number can change. ErrUnsupported: the kernel cannot.
func sendByFD(pidfd int, sig syscall.Signal, group bool) error {
	if pidfd < 0 {
		return errors.ErrUnsupported
	}
	if !group {
		return unix.PidfdSendSignal(pidfd, sig, nil, 0)
	}
	err := unix.PidfdSendSignal(pidfd, sig, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	if err == unix.EINVAL { //nolint:errorlint // an errno
		return errors.ErrUnsupported
	}
	return err
}

// fork forks and executes, and sets the limits.
func (w *spawning) fork(path string, args []string, ch *child) error {
	w.sys.PidFD = &ch.pidfd
	w.sys.Pdeathsig = w.c.DeathSignal
	start := func() (err error) {
		ch.pid, err = syscall.ForkExec(path, args, &w.attr)
		return err
	}
	if len(w.c.Limits) > 0 {
		w.sys.Ptrace = true
		untraced := start
		start = func() error {
			if err := untraced(); err != nil {
				return err
			}
			return w.limit(path, ch)
		}
	}
	if w.c.DeathSignal == 0 && len(w.c.Limits) == 0 {
		return start()
	}
	free := make(chan struct{})
	if w.c.DeathSignal != 0 {
		ch.freed = free
	} else {
		close(free) // the tracing is over when start returns
	}
	return onThread(free, start)
}

// limit sets the limits of a child that is stopped before its first instruction, and
// lets it go. It runs on the thread that started it.
func (w *spawning) limit(path string, ch *child) error {
	var ws syscall.WaitStatus
	_, err := retry(func() (int, error) { return syscall.Wait4(ch.pid, &ws, unix.WALL, nil) })
	if err == nil && !ws.Stopped() {
		closeAll(ch.pidfd)
		return &StartError{Op: "limit", Path: path, Err: errors.New("it ended before its limits were set")}
	}
	for _, l := range w.c.Limits {
		if err == nil {
			err = unix.Prlimit(ch.pid, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil)
		}
	}
	if err == nil {
		err = unix.PtraceDetach(ch.pid)
	}
	if err == nil {
		return nil
	}
	_ = unix.Kill(ch.pid, unix.SIGKILL)
	_, _ = retry(func() (int, error) { return syscall.Wait4(ch.pid, &ws, unix.WALL, nil) })
	closeAll(ch.pidfd)
	e := &StartError{Op: "limit", Path: path, Err: err}
	switch {
	case errors.Is(err, unix.EPERM):
		e.Hint = "to raise a hard limit takes root's privileges (CAP_SYS_RESOURCE)"
	case errors.Is(err, unix.EINVAL):
		e.Hint = "there is no such limit, or its soft value is above its hard one"
	}
	return e
}

// awaitExit blocks until the child has exited, and does not reap it.
func (c *child) awaitExit() {
	_, _ = retry(func() (int, error) { // an error means that it is gone
		return 0, unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	})
}

// hasExited reports whether the child is a zombie, or has been taken from us.
func (c *child) hasExited() bool {
	var info unix.Siginfo
	_, err := retry(func() (int, error) {
		return 0, unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	})
	return err != nil || info.Signo != 0
}

// reap takes the status of a child that has exited.
func (c *child) reap() (Exit, bool) {
	var (
		ws syscall.WaitStatus
		ru syscall.Rusage
	)
	pid, err := retry(func() (int, error) { return syscall.Wait4(c.pid, &ws, syscall.WNOHANG, &ru) })
	switch {
	case err != nil:
		return Exit{Code: -1, Err: ErrUnknownExit}, true
	case pid == 0:
		return Exit{}, false
	}
	return exitOf(ws, &ru), true
}

func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != syscall.EINTR { //nolint:errorlint // an errno
			return n, err
		}
	}
}
