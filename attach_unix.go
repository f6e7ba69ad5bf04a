//go:build unix

package weir

import (
	"golang.org/x/sys/unix"
)

// describeFD asks the system what a descriptor is.
func describeFD(fd int) (d descriptor, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return d, sysError("fstat", err)
	}
	fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return d, sysError("fcntl", err)
	}
	mode := fl & unix.O_ACCMODE
	d.read = mode == unix.O_RDONLY || mode == unix.O_RDWR
	d.write = mode == unix.O_WRONLY || mode == unix.O_RDWR
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		d.net = netTCP
		if sa, err := unix.Getsockname(fd); err == nil {
			if _, local := sa.(*unix.SockaddrUnix); local {
				d.net = netUnix
			}
		}
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil {
			d.listening = v != 0
		}
	case unix.S_IFCHR:
		d.net = netPipe
		if isTerminal(fd) {
			d.net = netTTY
		}
	default:
		d.net = netPipe
	}
	return d, nil
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, ioctlGetTermios)
	return err == nil
}

func closeFDs(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
