package sys

import "golang.org/x/sys/unix"

// describeFamily says of a socket what only Linux has.
func describeFamily(fd int, d *Description) {
	domain, err := getInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return
	}
	switch domain {
	case unix.AF_VSOCK:
		d.Vsock = true
	case unix.AF_BLUETOOTH:
		d.RFCOMM = true
	case unix.AF_INET, unix.AF_INET6:
		protocol, err := getInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		d.SCTP = err == nil && protocol == unix.IPPROTO_SCTP
	}
}
