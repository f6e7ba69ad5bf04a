//go:build !unix

package sim

import "syscall"

const killSignal = syscall.SIGKILL

func alwaysStops(syscall.Signal) bool { return false }

func stops(syscall.Signal) bool { return false }

func continues(syscall.Signal) bool { return false }

func ignored(sig syscall.Signal) bool { return sig == 0 }
