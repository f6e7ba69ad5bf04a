//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package address

import (
	"errors"
	"os"
	"syscall"
)

// noFollow has open(2) fail on a symbolic link.
const noFollow = syscall.O_NOFOLLOW

// othersFile says why a regular file is not this user's alone; "" if it is.
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

// lockFile reports whether f is ours alone, until it is closed. Where the file
// system has no locks it is taken for that.
func lockFile(f *os.File) bool {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return !errors.Is(err, syscall.EWOULDBLOCK)
}
