package main

import "syscall"

// datagramSocket opens a UNIX datagram socket, non-blocking and close-on-exec from the
// start: the loop does not wait for a fork, which may wait for a disk.
func datagramSocket() (int, error) {
	return syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
}
