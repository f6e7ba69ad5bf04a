package endpoint

import "syscall"

// watchWriters returns a descriptor that becomes readable when a process that
// had the file at path open for writing closes it. It returns -1 if the system
// has no more such descriptors, of which each user has few: a pipe's stream
// then begins with the first byte.
func watchWriters(path string) int {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return -1
	}
	if _, err := syscall.InotifyAddWatch(fd, path, syscall.IN_CLOSE_WRITE); err != nil {
		closeFD(fd)
		return -1
	}
	return fd
}
