package layer_test

import (
	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/backendtest"
)

// terminal joins two protocols by a pseudo-terminal that leaves bytes as they are.
func terminal(r *rig, master, slave weir.Factory) error {
	r.t.Helper()
	m, s := backendtest.Terminal(r.t)
	mode, err := unix.IoctlGetTermios(s, unix.TCGETS)
	if err != nil {
		return err
	}
	mode.Iflag, mode.Oflag, mode.Lflag = 0, 0, 0
	mode.Cflag = mode.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(s, unix.TCSETS, mode); err != nil {
		return err
	}
	if _, err := r.loop.Attach(s, "slave", slave); err != nil {
		return err
	}
	_, err = r.loop.Attach(m, "master", master)
	return err
}
