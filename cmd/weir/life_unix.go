//go:build unix

package main

import (
	"os"
	"syscall"
)

// shows is the signal that asks what is going on.
var shows os.Signal = syscall.SIGQUIT
