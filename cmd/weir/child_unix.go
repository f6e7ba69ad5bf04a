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

// dup is another descriptor for what fd is.
func dup(fd int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	d, err := syscall.Dup(fd)
	if err == nil {
		syscall.CloseOnExec(d)
	}
	return d, err
}

func closeDup(fd int) { _ = syscall.Close(fd) }
