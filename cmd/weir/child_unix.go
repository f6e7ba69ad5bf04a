//go:build unix

package main

import (
	"os"
	"syscall"
)

// windowChange is the signal that says that the terminal's size has changed.
var windowChange os.Signal = syscall.SIGWINCH

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
