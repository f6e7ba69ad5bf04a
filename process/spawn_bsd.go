//go:build unix && !linux

package process

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where a descriptor cannot be made close-on-exec at its creation, forking is held
// off until it is.

func pair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}

func pipe() (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err = unix.Pipe(fds[:]); err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}

// ended is the status of a child. A goroutine waits for it, which reaps it: the kernel
// could reap it in the moment before reaped is set.
type ended struct {
	mu     sync.Mutex
	reaped bool
	exit   Exit
}

func (e *ended) unlessReaped(_ int, f func() error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reaped {
		return ErrExited
	}
	return f()
}

func openPidfd(int) int { return -1 }

func sendByFD(int, syscall.Signal, bool) error { return errors.ErrUnsupported }

func (w *spawning) fork(path string, args []string, ch *child) (err error) {
	if len(w.c.Limits) > 0 || w.c.DeathSignal != 0 {
		return syscall.ENOTSUP
	}
	ch.pid, err = syscall.ForkExec(path, args, &w.attr)
	return err
}

// awaitExit blocks until the child has exited, and reaps it.
func (c *child) awaitExit() {
	var (
		ws  syscall.WaitStatus
		ru  syscall.Rusage
		err error = syscall.EINTR
	)
	for err == syscall.EINTR { //nolint:errorlint // an errno
		_, err = syscall.Wait4(c.pid, &ws, 0, &ru)
	}
	c.ended.mu.Lock()
	defer c.ended.mu.Unlock()
	c.ended.reaped = true
	c.ended.exit = Exit{Code: -1, Err: ErrUnknownExit}
	if err == nil {
		c.ended.exit = exitOf(ws, &ru)
	}
}

func (c *child) hasExited() bool {
	c.ended.mu.Lock()
	defer c.ended.mu.Unlock()
	return c.ended.reaped
}

func (c *child) reap() (Exit, bool) {
	c.ended.mu.Lock()
	defer c.ended.mu.Unlock()
	return c.ended.exit, c.ended.reaped
}
