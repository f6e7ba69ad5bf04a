//go:build darwin || freebsd

package sys

import "golang.org/x/sys/unix"

// PeerOf is who was at the other end of a UNIX socket when it was connected. The
// process is not known.
func PeerOf(fd int) (User, error) {
	c, err := unix.GetsockoptXucred(fd, 0, unix.LOCAL_PEERCRED)
	if err != nil {
		return User{}, err
	}
	return User{UID: c.Uid, GID: c.Groups[0]}, nil
}

// GroupsOf are the groups of that process, its own and the supplementary ones, as far as
// the system keeps them: sixteen.
func GroupsOf(fd int) ([]uint32, error) {
	c, err := unix.GetsockoptXucred(fd, 0, unix.LOCAL_PEERCRED)
	if err != nil {
		return nil, err
	}
	return append([]uint32(nil), c.Groups[:min(max(int(c.Ngroups), 0), len(c.Groups))]...), nil
}
