package layer_test

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
)

// terminal joins two protocols by a pseudo-terminal that leaves bytes as they are.
func terminal(r *rig, master, slave weir.Factory) error {
	r.t.Helper()
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		r.t.Skipf("no pseudo-terminals: %v", err)
	}
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	s, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return errno
	}
	mode, err := unix.IoctlGetTermios(int(s), unix.TCGETS)
	if err != nil {
		return err
	}
	mode.Iflag, mode.Oflag, mode.Lflag = 0, 0, 0
	mode.Cflag = mode.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(s), unix.TCSETS, mode); err != nil {
		return err
	}
	if _, err := r.loop.Attach(int(s), "slave", slave); err != nil {
		return err
	}
	_, err = r.loop.Attach(m, "master", master)
	return err
}
