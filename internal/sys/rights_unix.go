//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package sys

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// RightsSpace is how many bytes of out RecvRights needs.
func RightsSpace() int { return unix.CmsgSpace(4 * RightsMost) }

// SendRights sends p, which is not empty, and with its first byte duplicates of fds, on a
// UNIX socket, without waiting. It sends all descriptors or nothing.
func SendRights(fd int, p []byte, fds []int) (int, error) {
	rights := unix.UnixRights(fds...)
	for {
		n, err := unix.SendmsgN(fd, p, rights, nil, unix.MSG_DONTWAIT|noSignal)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// RecvRights reads from a UNIX socket without waiting, and returns the descriptors that
// came with the bytes, close-on-exec. They come with ErrRightsCut if there should be
// more. oob is memory for the call, RightsSpace bytes.
func RecvRights(fd int, p, oob []byte) (n int, fds []int, err error) {
	if cloexec == 0 {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	var oobn, flags int
	for {
		n, oobn, flags, _, err = unix.Recvmsg(fd, p, oob, unix.MSG_DONTWAIT|cloexec)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return 0, nil, err
	}
	if oobn > 0 {
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return n, nil, ErrRightsCut
		}
		for i := range messages {
			if got, err := unix.ParseUnixRights(&messages[i]); err == nil { // else it is another kind
				fds = append(fds, got...)
			}
		}
	}
	if cloexec == 0 {
		for _, f := range fds {
			unix.CloseOnExec(f)
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return n, fds, ErrRightsCut
	}
	return n, fds, nil
}

// Dup duplicates a descriptor, close-on-exec.
func Dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

// IsOpen returns an error unless fd is an open descriptor.
func IsOpen(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err
}
