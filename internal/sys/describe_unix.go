//go:build unix

package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Describe asks the system what fd is.
func Describe(fd int) (d Description, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return d, os.NewSyscallError("fstat", err)
	}
	fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return d, os.NewSyscallError("fcntl", err)
	}
	mode := fl & unix.O_ACCMODE
	d.Read = mode == unix.O_RDONLY || mode == unix.O_RDWR
	d.Write = mode == unix.O_WRONLY || mode == unix.O_RDWR
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		d.Socket, d.dev, d.ino = true, uint64(st.Dev), uint64(st.Ino) //nolint:unconvert // of other types elsewhere
		if sa, err := unix.Getsockname(fd); err == nil {
			_, d.Local = sa.(*unix.SockaddrUnix)
		}
		describeFamily(fd, &d)
		if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil {
			d.Listening = v != 0
		}
	case unix.S_IFDIR:
		return d, unix.EISDIR
	case unix.S_IFCHR:
		d.Terminal = isTerminal(fd)
	}
	return d, nil
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, ioctlGetTermios)
	return err == nil
}

// CloseAll closes descriptors.
func CloseAll(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
