package sys

import (
	"errors"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSerialSettings: the bits that ask for each setting, most of which a pseudo-terminal
// does not keep.
func TestSerialSettings(t *testing.T) {
	const base = unix.CREAD | unix.BOTHER
	for _, c := range []struct {
		s            SerialSettings
		iflag, cflag uint32
	}{
		{SerialSettings{Speed: 115200, Bits: 8, Stop: 1, Parity: 'n'}, 0, unix.CS8 | unix.CLOCAL},
		{SerialSettings{Speed: 31250, Bits: 7, Stop: 1, Parity: 'e'}, 0, unix.CS7 | unix.CLOCAL | unix.PARENB},
		{SerialSettings{Speed: 1200, Bits: 6, Stop: 2, Parity: 'o'}, 0, unix.CS6 | unix.CLOCAL | unix.CSTOPB | unix.PARENB | unix.PARODD},
		{SerialSettings{Speed: 1200, Bits: 5, Stop: 1, Parity: 'm'}, 0, unix.CS5 | unix.CLOCAL | unix.PARENB | unix.PARODD | unix.CMSPAR},
		{SerialSettings{Speed: 1200, Bits: 8, Stop: 1, Parity: 's'}, 0, unix.CS8 | unix.CLOCAL | unix.PARENB | unix.CMSPAR},
		{SerialSettings{Speed: 4000000, Bits: 8, Stop: 1, Parity: 'n', RTSCTS: true, HangUp: true}, 0, unix.CS8 | unix.CLOCAL | unix.CRTSCTS | unix.HUPCL},
		{SerialSettings{Speed: 300, Bits: 8, Stop: 1, Parity: 'n', XONXOFF: true, Carrier: true}, unix.IXON | unix.IXOFF, unix.CS8},
	} {
		// Everything that a shell may have left is cleared.
		d := unix.Termios{Iflag: ^uint32(0), Oflag: ^uint32(0), Lflag: ^uint32(0), Cflag: ^uint32(0)}
		c.s.put(&d)
		if d.Iflag != c.iflag || d.Oflag != 0 || d.Lflag != 0 || d.Cflag != base|c.cflag {
			t.Errorf("%+v: flags %#o %#o %#o %#o, want %#o 0 0 %#o", c.s, d.Iflag, d.Oflag, d.Lflag, d.Cflag, c.iflag, base|c.cflag)
		}
		if d.Ospeed != uint32(c.s.Speed) || d.Ispeed != d.Ospeed || d.Cc[unix.VMIN] != 1 || d.Cc[unix.VTIME] != 0 {
			t.Errorf("%+v: speeds %d %d, VMIN %d, VTIME %d", c.s, d.Ispeed, d.Ospeed, d.Cc[unix.VMIN], d.Cc[unix.VTIME])
		}
		if c.s.XONXOFF && (d.Cc[unix.VSTART] != 17 || d.Cc[unix.VSTOP] != 19) {
			t.Errorf("XON is %d, XOFF %d", d.Cc[unix.VSTART], d.Cc[unix.VSTOP])
		}
		if back := serialOf(&d); back != c.s {
			t.Errorf("%+v reads back as %+v", c.s, back)
		}
	}
}

// TestOpenSerial: a line is opened without waiting for a carrier, and for this process alone.
func TestOpenSerial(t *testing.T) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no pseudo-terminals: ", err)
	}
	defer Close(master)
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	fd, _, err := OpenSerial("/dev/pts/"+strconv.Itoa(n), &SerialSettings{Speed: 9600, Bits: 8, Stop: 1, Parity: 'n'})
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fd)
	status, err1 := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	flags, err2 := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err := errors.Join(err1, err2); err != nil || status&unix.O_NONBLOCK == 0 || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("its flags are %#o and %#o, %v", status, flags, err)
	}
}
