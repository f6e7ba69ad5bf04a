//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package endpoint

import (
	"errors"
	"os"
	"syscall"
)

// noFollow makes open(2) fail on a symbolic link.
const noFollow = syscall.O_NOFOLLOW

// othersFile says why a regular file does not belong to this user alone; "" if
// it does.
func othersFile(st os.FileInfo) OutputFileProblem {
	s, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
	case int(s.Uid) != os.Geteuid():
		return OtherOwner
	case s.Nlink > 1:
		return SecondName
	}
	return ""
}

// lockFile locks f until it is closed, and reports whether it is ours alone. On
// a file system without locks the answer is taken to be yes.
func lockFile(f *os.File) bool {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return !errors.Is(err, syscall.EWOULDBLOCK)
}
