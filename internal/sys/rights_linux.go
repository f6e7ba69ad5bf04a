package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// GroupsOf are the groups of that process, its own and the supplementary ones.
func GroupsOf(fd int) ([]uint32, error) {
	u, err := PeerOf(fd)
	if err != nil {
		return nil, err
	}
	groups := make([]uint32, 1+64) // the first is the process's own
	for {
		n := uint32(len(groups)-1) * 4                                                                      //nolint:gosec // the kernel has at most 65,536
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS, //nolint:gosec // a descriptor
			uintptr(unsafe.Pointer(&groups[1])), uintptr(unsafe.Pointer(&n)), 0)
		switch {
		case errno == 0:
			groups[0] = u.GID
			return groups[:1+n/4], nil
		case errno != unix.ERANGE || int(n)/4 < len(groups):
			return nil, errno
		}
		groups = make([]uint32, 1+n/4)
	}
}
