//go:build unix

package file

import "syscall"

// isFileNumber reports whether a descriptor is that of a file or a disk.
func isFileNumber(fd int) bool {
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil {
		return false
	}
	kind := st.Mode & syscall.S_IFMT
	return kind == syscall.S_IFREG || kind == syscall.S_IFBLK
}
