//go:build !windows && !plan9

package weir

import (
	"os"
	"syscall"
)

func catchable(sig os.Signal) bool { return sig != syscall.SIGKILL && sig != syscall.SIGSTOP }
