//go:build unix

// Package files knows how many descriptors this process may have.
package files

import "syscall"

// Limit is how many descriptors this process may have; 0 if that is not known. Go
// raised the soft limit to the hard one when the program started.
func Limit() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return uint64(l.Cur) //nolint:unconvert // FreeBSD has int64
}
