//go:build unix && !linux

package main

import "syscall"

// datagramSocket opens a UNIX datagram socket, non-blocking and close-on-exec. Some of
// these systems cannot do so in one call, so forking is held off.
func datagramSocket() (int, error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd) // nothing was sent
		return -1, err
	}
	return fd, nil
}
