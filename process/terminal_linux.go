package process

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
)

// openTerminal opens a pseudo-terminal. tty leads to its slave and keeps it neither
// open nor from hanging up.
func openTerminal(size Size) (master, slave, tty int, err error) {
	master, err = openRetry("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if err != nil {
		return -1, -1, -1, err
	}
	slave, tty = -1, -1
	defer func() {
		if err != nil {
			closeAll(master, slave, tty)
			master, slave, tty = -1, -1, -1
		}
	}()
	if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return
	}
	// By the master, not by a name, which means another terminal where /dev is not ours.
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	slave = int(r)
	if errno != 0 { // Linux before 4.13
		var n int
		if n, err = unix.IoctlGetInt(master, unix.TIOCGPTN); err != nil {
			return
		}
		if slave, err = openRetry("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC); err != nil {
			return
		}
	}
	if tty, err = openRetry("/proc/self/fd/"+strconv.Itoa(slave), unix.O_PATH|unix.O_CLOEXEC); err != nil {
		return
	}
	if size != (Size{}) {
		err = SetWindowSize(slave, size)
	}
	return
}

// terminalsDir is where pseudo-terminals are.
const terminalsDir = "/dev/pts/"

// open opens the master of a console, and the slave that is held.
func (k *Console) open(c *ConsoleConfig) (master int, err error) {
	master, err = openRetry("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	var n int
	if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err == nil {
		n, err = unix.IoctlGetInt(master, unix.TIOCGPTN)
	}
	if err != nil {
		closeAll(master)
		return -1, os.NewSyscallError("ioctl", err)
	}
	k.path = terminalsDir + strconv.Itoa(n)
	if c.Once {
		return master, nil
	}
	if k.hold, err = openRetry(k.path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC); err != nil {
		closeAll(master)
		return -1, &os.PathError{Op: "open", Path: k.path, Err: err}
	}
	return master, nil
}

// letGo closes a descriptor, if there is one.
func letGo(fd int) { closeAll(fd) }

// resizePath sets the size of the terminal that tty leads to.
func resizePath(tty int, size Size) error {
	if tty < 0 {
		return errors.ErrUnsupported
	}
	fd, err := openRetry("/proc/self/fd/"+strconv.Itoa(tty), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer closeAll(fd)
	return SetWindowSize(fd, size)
}
