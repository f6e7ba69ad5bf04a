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
