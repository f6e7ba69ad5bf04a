package sys

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SerialState is how a line was set before, and which device it is.
type SerialState struct {
	t         *unix.Termios
	dev, node uint64
}

// SameDevice reports whether two openings were of one device: it was there all the time.
func (s SerialState) SameDevice(o SerialState) bool {
	return s.node != 0 && s.dev == o.dev && s.node == o.node
}

// OpenSerial opens and sets the serial line at path. It does not wait for a carrier. The
// descriptor is non-blocking and close-on-exec, and belongs to the caller. was is for
// CloseSerial.
func OpenSerial(path string, s *SerialSettings) (fd int, was SerialState, err error) {
	for {
		fd, err = unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return -1, was, &os.PathError{Op: "open", Path: path, Err: err}
	}
	was.t, err = unix.IoctlGetTermios(fd, getTermios2)
	if err != nil {
		Close(fd)
		return -1, was, os.NewSyscallError("tcgetattr", err)
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil {
		was.dev, was.node = uint64(st.Dev), st.Ino //nolint:unconvert // on some machines
	}
	ours, err := prepareSerial(fd, s)
	if err != nil {
		if !ours {
			was = SerialState{} // it is someone else's
		}
		CloseSerial(fd, SerialEnd{Drop: true, Exclusive: ours, Was: was})
		return -1, was, err
	}
	return fd, was, nil
}

// prepareSerial sets a line that was just opened. ours says that others are kept out by us.
func prepareSerial(fd int, s *SerialSettings) (ours bool, err error) {
	if s.Exclusive {
		// TIOCEXCL keeps others from opening it, except root and those that have it
		// open already. The lock keeps them out too, if they ask.
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = fmt.Errorf("another program has locked it (flock), and has to close it first: %w", unix.EBUSY)
			}
			return false, err
		}
		if err := unix.IoctlSetInt(fd, unix.TIOCEXCL, 0); err != nil {
			return true, os.NewSyscallError("ioctl", err)
		}
	}
	return s.Exclusive, SetSerial(fd, s)
}

// SetSerial sets an open line. What its driver cannot do it leaves out without an error:
// see Serial.
func SetSerial(fd int, s *SerialSettings) error {
	t, err := unix.IoctlGetTermios(fd, getTermios2)
	if err != nil {
		return os.NewSyscallError("tcgetattr", err)
	}
	s.put(t)
	if err := unix.IoctlSetTermios(fd, setTermios2, t); err != nil {
		return os.NewSyscallError("tcsetattr", err)
	}
	for _, l := range [...]struct{ want, line int }{{s.DTR, unix.TIOCM_DTR}, {s.RTS, unix.TIOCM_RTS}} {
		if l.want == 0 {
			continue
		}
		if err := setLine(fd, l.line, l.want > 0); err != nil {
			return err
		}
	}
	return nil
}

// put stores the settings in t, whose bytes then pass as they are.
func (s *SerialSettings) put(t *unix.Termios) {
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if s.XONXOFF {
		t.Iflag = unix.IXON | unix.IXOFF
		t.Cc[unix.VSTART], t.Cc[unix.VSTOP] = 'Q'&0x1f, 'S'&0x1f
	}
	set := func(on bool, flag uint32) {
		if on {
			t.Cflag |= flag
		}
	}
	// An input speed of 0 is that of the output.
	t.Cflag = unix.CREAD | unix.BOTHER
	t.Ispeed, t.Ospeed = uint32(s.Speed), uint32(s.Speed)
	t.Cflag |= [...]uint32{unix.CS5, unix.CS6, unix.CS7, unix.CS8}[s.Bits-5]
	set(s.Stop == 2, unix.CSTOPB)
	set(s.Parity != 'n', unix.PARENB)
	set(s.Parity == 'o' || s.Parity == 'm', unix.PARODD)
	set(s.Parity == 'm' || s.Parity == 's', unix.CMSPAR)
	set(s.RTSCTS, unix.CRTSCTS)
	set(!s.Carrier, unix.CLOCAL)
	set(s.HangUp, unix.HUPCL)
}

// Serial reads how an open line is set, as far as the line has settings.
func Serial(fd int) (SerialSettings, error) {
	t, err := unix.IoctlGetTermios(fd, getTermios2)
	if err != nil {
		return SerialSettings{}, os.NewSyscallError("tcgetattr", err)
	}
	return serialOf(t), nil
}

// serialOf is the reverse of put.
func serialOf(t *unix.Termios) SerialSettings {
	s := SerialSettings{
		Speed: int(t.Ospeed), Bits: 5 + int(t.Cflag&unix.CSIZE/unix.CS6), Stop: 1, Parity: 'n',
		RTSCTS: t.Cflag&unix.CRTSCTS != 0, XONXOFF: t.Iflag&unix.IXON != 0,
		Carrier: t.Cflag&unix.CLOCAL == 0, HangUp: t.Cflag&unix.HUPCL != 0,
	}
	if t.Cflag&unix.CSTOPB != 0 {
		s.Stop = 2
	}
	if t.Cflag&unix.PARENB != 0 {
		// Even, odd, space, mark.
		i := 0
		if t.Cflag&unix.PARODD != 0 {
			i = 1
		}
		if t.Cflag&unix.CMSPAR != 0 {
			i += 2
		}
		s.Parity = "eosm"[i]
	}
	return s
}

func setLine(fd, line int, on bool) error {
	request := uint(unix.TIOCMBIC)
	if on {
		request = unix.TIOCMBIS
	}
	return os.NewSyscallError("ioctl", unix.IoctlSetPointerInt(fd, request, line))
}

// SetSerialLine raises or drops LineDTR or LineRTS.
func SetSerialLine(fd, line int, on bool) error {
	if line == LineDTR {
		return setLine(fd, unix.TIOCM_DTR, on)
	}
	return setLine(fd, unix.TIOCM_RTS, on)
}

// SerialLines returns the lines that are raised.
func SerialLines(fd int) (lines int, err error) {
	v, err := unix.IoctlGetInt(fd, unix.TIOCMGET)
	if err != nil {
		return 0, os.NewSyscallError("ioctl", err)
	}
	for i, line := range [...]int{unix.TIOCM_DTR, unix.TIOCM_RTS, unix.TIOCM_CTS, unix.TIOCM_DSR, unix.TIOCM_CD, unix.TIOCM_RI} {
		if v&line != 0 {
			lines |= 1 << i
		}
	}
	return lines, nil
}

// SerialBreak begins or ends a break.
func SerialBreak(fd int, on bool) error {
	request := uint(unix.TIOCCBRK)
	if on {
		request = unix.TIOCSBRK
	}
	return os.NewSyscallError("ioctl", unix.IoctlSetInt(fd, request, 0))
}

// SerialUnsent returns how many bytes the kernel still has to send. The error means that
// no one knows: the line is gone.
func SerialUnsent(fd int) (int, error) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
	return n, os.NewSyscallError("ioctl", err)
}

// CloseSerial closes a descriptor of a line and sets the line as it was; but what happens to
// DTR and RTS when it is closed stays as it is set. It blocks, perhaps for long, for it waits
// for the last bytes and, in the last close, for what the driver waits for: it is no call for
// a loop's goroutine. cut says that the bytes did not leave in time.
func CloseSerial(fd int, e SerialEnd) (cut bool) {
	if e.Break {
		_ = SerialBreak(fd, false) // a device that is gone sends none
	}
	if e.Drop {
		_ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH)
	}
	if now, err := unix.IoctlGetTermios(fd, getTermios2); err == nil && e.Was.t != nil {
		t := *e.Was.t
		t.Cflag = t.Cflag&^unix.HUPCL | now.Cflag&unix.HUPCL
		if e.Drop {
			_ = unix.IoctlSetTermios(fd, setTermios2, &t) // it was so before
		} else {
			cut = setSent(fd, &t, e.Wait)
		}
	}
	if e.Exclusive {
		// Otherwise one that had it open before would keep it closed to others, and another
		// descriptor of ours would keep the lock.
		_ = unix.IoctlSetInt(fd, unix.TIOCNXCL, 0)
		_ = unix.Flock(fd, unix.LOCK_UN)
	}
	Close(fd)
	return cut
}

// setSent sets a line once the last bytes have left, or drops those when wait has passed.
func setSent(fd int, t *unix.Termios, wait time.Duration) (cut bool) {
	late := make(chan struct{})
	patience := time.AfterFunc(wait, func() {
		_ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH) // the call below then ends
		close(late)
	})
	_ = unix.IoctlSetTermios(fd, drainTermios2, t) // it was so before
	if !patience.Stop() {
		<-late
		return true
	}
	return false
}
