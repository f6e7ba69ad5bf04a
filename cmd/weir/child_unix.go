//go:build unix

package main

import (
	"os"
	"syscall"
)

// windowChange is the signal that says that the terminal's size has changed.
var windowChange os.Signal = syscall.SIGWINCH

// What a shell stops a job with, unless it cannot be caught, and lets it go on with.
var stopSignal, continueSignal os.Signal = syscall.SIGTSTP, syscall.SIGCONT

// stopSelf stops the process as the signal would have if no one had caught it. It may return
// before that.
func stopSelf() { _ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP) } // always allowed

// dup duplicates a descriptor, close-on-exec, without syscall.ForkLock, which a fork
// holds until the program has been read from its disk.
func dup(fd int) (int, error) {
	d, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(d), nil
}

func closeDup(fd int) { _ = syscall.Close(fd) }
