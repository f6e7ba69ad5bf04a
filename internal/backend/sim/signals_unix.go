//go:build unix

package sim

import "syscall"

const killSignal = syscall.SIGKILL

// alwaysStops reports whether a signal stops a program that cannot catch it.
func alwaysStops(sig syscall.Signal) bool { return sig == syscall.SIGSTOP }

// stops reports whether a signal stops a program that does not catch it.
func stops(sig syscall.Signal) bool {
	return sig == syscall.SIGSTOP || sig == syscall.SIGTSTP || sig == syscall.SIGTTIN || sig == syscall.SIGTTOU
}

// continues reports whether it lets a stopped one go on.
func continues(sig syscall.Signal) bool { return sig == syscall.SIGCONT }

// ignored reports whether a program that does not catch it lives on.
func ignored(sig syscall.Signal) bool {
	return sig == syscall.SIGCONT || sig == syscall.SIGCHLD || sig == syscall.SIGWINCH || sig == syscall.SIGURG || sig == 0
}
