//go:build unix

package file

import (
	"errors"
	"os"
	"syscall"
)

// checkSide finds out why a descriptor cannot be read from, or written to.
func checkSide(fd int, write bool) error {
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	switch mode := int(flags) & syscall.O_ACCMODE; {
	case errno != 0:
		return os.NewSyscallError("fcntl", errno)
	case write && mode == syscall.O_RDONLY:
		return errors.New("it was not opened for writing")
	case !write && mode == syscall.O_WRONLY:
		return errors.New("it was not opened for reading")
	}
	return nil
}

// isFileNumber reports whether a descriptor is that of a file or a disk.
func isFileNumber(fd int) bool {
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil {
		return false
	}
	kind := st.Mode & syscall.S_IFMT
	return kind == syscall.S_IFREG || kind == syscall.S_IFBLK
}
