package sys

import "golang.org/x/sys/unix"

const (
	noSignal = unix.MSG_NOSIGNAL
	cloexec  = unix.MSG_CMSG_CLOEXEC
)

// PeerOf is who was at the other end of a UNIX socket when it was connected.
func PeerOf(fd int) (User, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return User{}, err
	}
	return User{PID: int(c.Pid), UID: c.Uid, GID: c.Gid}, nil
}
