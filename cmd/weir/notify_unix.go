//go:build unix

package main

import (
	"errors"
	"syscall"
)

// sendDatagram sends a message to a UNIX datagram socket, @name for an abstract
// one, without waiting. It reports true if there is no room now.
func sendDatagram(socket, text string) (full bool) {
	fd, err := datagramSocket()
	if err != nil {
		return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
	}
	defer func() { _ = syscall.Close(fd) }() // nothing is buffered
	for {
		err := syscall.Sendto(fd, []byte(text), 0, &syscall.SockaddrUnix{Name: socket})
		if !errors.Is(err, syscall.EINTR) {
			return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOBUFS)
		}
	}
}
