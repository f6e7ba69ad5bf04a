package sys

import (
	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// Class says which calls read and write a descriptor.
type Class uint8

// The classes of descriptors.
const (
	// Socket: Recv and Send, which never wait, whatever mode the descriptor is in.
	Socket Class = iota + 1
	// Stream: Read and Write; the descriptor is in non-blocking mode.
	Stream
	// Plain: ReadSlow and WriteSlow; a file that the system considers always ready.
	Plain
	// Polled: a descriptor that blocks, and that others expect to block. Poll first,
	// then ReadSlow, or WriteSlow of at most PipeAtomic bytes: as much as a writable
	// pipe takes at once. It can still wait if another process reads or fills the pipe
	// in between.
	Polled
)

// PipeAtomic is PIPE_BUF: this many bytes enter a writable pipe at once.
const PipeAtomic = 4096

// Descriptor is a descriptor taken over from outside, and how to treat it.
type Descriptor struct {
	FD    int // the one to use
	Class Class
	// Standard is the number that was adopted if that is one of 0 to 2 and another is
	// used in its place: it is to be closed along with it. Otherwise -1.
	Standard int
	// Blocks is true for a socket in blocking mode: Recv and Send do not block, every
	// other call would.
	Blocks bool
	// Master is true for the master side of a pseudo-terminal, whose end of
	// stream is EIO.
	Master bool
	Family backend.Family // of a socket
	// Messages is true for a socket of Inet of which a read gets one message at most (SCTP).
	Messages bool
	IPv6     bool
	Listen   bool // a listening socket
}

// Adopt finds out how to treat fd so that nothing done with it blocks and no one
// sharing it notices. The flags of an open file belong to all processes that inherited
// it (a shell and what it starts share one terminal), so they are not changed: pipes
// and terminals are opened a second time, which gives the new descriptor flags of its
// own. Only a listening socket is made non-blocking, as nothing else keeps accept from
// waiting.
//
// On success fd is taken over: it is close-on-exec, or closed already if another
// descriptor replaces it, unless it is one of the numbers 0 to 2, which stay open until
// CloseAdopted. On failure it is left as it was.
func Adopt(fd int) (Descriptor, error) {
	d := Descriptor{FD: fd, Standard: -1}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return d, err
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return d, err
	}
	if flags&unix.O_PATH != 0 {
		return d, unix.EBADF
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		err = d.adoptSocket(flags)
	case unix.S_IFIFO:
		d.adoptStream(flags)
	case unix.S_IFCHR:
		d.adoptDevice(flags)
	case unix.S_IFDIR:
		err = unix.EISDIR
	case unix.S_IFREG, unix.S_IFBLK:
		d.Class = Plain
	default: // eventfd, timerfd and the like have no type
		d.Class = Polled
		if flags&unix.O_NONBLOCK != 0 {
			d.Class = Stream
		}
	}
	if err != nil {
		return d, err
	}
	if d.FD != fd {
		if fd <= 2 {
			d.Standard = fd
		} else {
			closeNumber(fd)
		}
	} else if fd > 2 {
		unix.CloseOnExec(fd)
	}
	return d, nil
}

func (d *Descriptor) adoptSocket(flags int) error {
	d.Class = Socket
	d.Blocks = flags&unix.O_NONBLOCK == 0
	domain, err := getInt(d.FD, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	switch domain {
	case unix.AF_INET:
		d.Family = backend.Inet
	case unix.AF_INET6:
		d.Family, d.IPv6 = backend.Inet, true
	case unix.AF_UNIX:
		d.Family = backend.Unix
	case unix.AF_VSOCK:
		d.Family = backend.Vsock
	case unix.AF_BLUETOOTH:
		d.Family = backend.RFCOMM
	}
	if protocol, err := getInt(d.FD, unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil {
		d.Messages = protocol == unix.IPPROTO_SCTP
	}
	if listens, err := getInt(d.FD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens != 0 {
		d.Listen = true
		if d.Blocks {
			if err := unix.SetNonblock(d.FD, true); err != nil {
				return err
			}
			d.Blocks = false
		}
	}
	return nil
}

func (d *Descriptor) adoptDevice(flags int) {
	if _, err := unix.IoctlGetTermios(d.FD, unix.TCGETS); err != nil {
		// Opening some other device again can have side effects, such as a new tunnel.
		d.Class = Polled
		if flags&unix.O_NONBLOCK != 0 {
			d.Class = Stream
		}
		return
	}
	if _, err := unix.IoctlGetInt(d.FD, unix.TIOCGPTN); err == nil {
		// Opening a master again would make a new pseudo-terminal. Masters are not
		// inherited, so its flags are ours.
		d.Master = true
		d.Class = Stream
		if unix.SetNonblock(d.FD, true) != nil {
			d.Class = Polled
		}
		return
	}
	d.adoptStream(flags)
}

// adoptStream opens again what d refers to. If the number is above those that processes
// commonly share, and the descriptor is already non-blocking, it is taken as it is.
func (d *Descriptor) adoptStream(flags int) {
	if d.FD > 2 && flags&unix.O_NONBLOCK != 0 {
		d.Class = Stream
		return
	}
	again, err := unix.Open(procPath(d.FD), flags&(unix.O_ACCMODE|unix.O_APPEND)|
		unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		d.Class = Polled // no /proc, or someone else's pipe (sudo)
		return
	}
	d.FD, d.Class = again, Stream
}

// CloseAdopted closes d, with Reset if reset is true.
func CloseAdopted(d *Descriptor, reset bool) error {
	errno := closeAs(d.FD, reset && d.Class == Socket)
	if d.Standard >= 0 {
		if e := Close(d.Standard); errno == 0 {
			errno = e
		}
	}
	return failed(errno)
}

func closeAs(fd int, reset bool) (errno unix.Errno) {
	if reset {
		return Reset(fd)
	}
	return Close(fd)
}
