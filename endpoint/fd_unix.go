//go:build unix

package endpoint

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// errNoReader says that no process has the pipe open for reading.
var errNoReader = errors.New("nothing reads from the pipe yet")

// isListening reports whether a descriptor is a listening socket.
func isListening(fd int) bool {
	v, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	return err == nil && v != 0
}

// checkPassed distinguishes a descriptor that was passed in from one of our
// own, which has its close-on-exec flag set.
func checkPassed(fd int) error {
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	if errno != 0 || flags&syscall.FD_CLOEXEC != 0 {
		return fmt.Errorf("descriptor %d was not passed to weir", fd)
	}
	return nil
}

// openPipe opens a named pipe without waiting for its other end.
func openPipe(path string, write bool) (int, error) {
	how := syscall.O_RDONLY
	if write {
		how = syscall.O_WRONLY
	}
	fd, err := syscall.Open(path, how|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, syscall.ENXIO) {
			return -1, errNoReader
		}
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		closeFD(fd)
		return -1, &os.PathError{Op: "open", Path: path, Err: errors.New("it is not a named pipe (make one with mkfifo)")}
	}
	return fd, nil
}

// dupFD duplicates a descriptor, close-on-exec. It runs on the loop, so it must not take
// syscall.ForkLock, which a fork holds until the program has been read from its disk.
func dupFD(fd int) (int, error) {
	d, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return -1, os.NewSyscallError("fcntl", errno)
	}
	return int(d), nil
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = syscall.Close(fd) // nothing can be done about an error
	}
}
