//go:build !windows

package portable

import "syscall"

func systemErrno(e syscall.Errno) error { return e }
