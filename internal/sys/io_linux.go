package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func base(p []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(p)) }

// Recv reads from a socket without waiting, whether or not the descriptor is in
// blocking mode.
func Recv(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(base(p)), uintptr(len(p)),
			unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Send writes to a socket without waiting, whether or not the descriptor is in blocking
// mode, and without SIGPIPE.
func Send(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(base(p)), uintptr(len(p)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Read reads from a non-blocking descriptor.
func Read(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(base(p)), uintptr(len(p)))
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Write writes to a non-blocking descriptor. For a pipe whose reader is gone the error
// is EPIPE; the SIGPIPE that comes with it does nothing in a Go program, on any
// descriptor: it is package os, not the runtime, that lets a program die of it.
func Write(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(base(p)), uintptr(len(p)))
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// ReadSlow is Read for something that may have to wait after all, such as a disk: the
// scheduler is told.
func ReadSlow(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.Syscall(unix.SYS_READ, uintptr(fd), uintptr(base(p)), uintptr(len(p)))
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// WriteSlow is Write for something that may have to wait after all.
func WriteSlow(fd int, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(base(p)), uintptr(len(p)))
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Vector is the memory for calls that take several pieces. Each call fills it again,
// and it keeps nothing alive in between. It must not be used by two calls at once, nor
// copied.
type Vector struct {
	iov [64]unix.Iovec
	hdr unix.Msghdr
}

// Fill makes v point at the pieces that are not empty, as many as there is room for,
// and returns their number and total size. Clear has to follow.
func (v *Vector) Fill(pieces [][]byte) (n, bytes int) {
	for _, p := range pieces {
		if len(p) == 0 {
			continue
		}
		if n == len(v.iov) {
			break
		}
		v.iov[n].Base = unsafe.SliceData(p)
		v.iov[n].SetLen(len(p))
		n++
		bytes += len(p)
	}
	return n, bytes
}

// Clear forgets the n pieces that Fill stored.
func (v *Vector) Clear(n int) {
	clear(v.iov[:n])
}

// SendVec is Send of several pieces; it sends what one call takes, at most 64
// of them.
func SendVec(fd int, pieces [][]byte, v *Vector) (int, syscall.Errno) {
	n, bytes := v.Fill(pieces)
	if bytes == 0 {
		return 0, 0
	}
	defer v.Clear(n)
	v.hdr.Iov = &v.iov[0]
	v.hdr.SetIovlen(n)
	for {
		sent, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.hdr)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno == 0 {
			return int(sent), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// WriteVec is Write of several pieces, or WriteSlow if slow is true.
func WriteVec(fd int, pieces [][]byte, v *Vector, slow bool) (int, syscall.Errno) {
	n, bytes := v.Fill(pieces)
	if bytes == 0 {
		return 0, 0
	}
	defer v.Clear(n)
	for {
		var (
			sent  uintptr
			errno syscall.Errno
		)
		if slow {
			sent, _, errno = syscall.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&v.iov[0])), uintptr(n))
		} else {
			sent, _, errno = syscall.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&v.iov[0])), uintptr(n))
		}
		if errno == 0 {
			return int(sent), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Splice moves up to max bytes from one descriptor to another, one of which
// is a pipe, without copying them through user space. Neither may block.
func Splice(from, to, max int) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(max),
			unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Deserted reports whether the slave side of a pseudo-terminal is closed, given its
// master. A master takes no more then once it is full, and no call says that it never
// will: a write ends with EAGAIN, and poll with POLLHUP.
func Deserted(master int) bool { return Poll(master, 0)&unix.POLLHUP != 0 }

// Poll returns which of the poll(2) events hold for fd now; it never waits.
func Poll(fd int, events int16) int16 {
	p := unix.PollFd{Fd: int32(fd), Events: events}
	var none unix.Timespec
	for {
		_, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1,
			uintptr(unsafe.Pointer(&none)), 0, 0, 0)
		if errno == 0 {
			return p.Revents
		}
		if errno != unix.EINTR {
			return unix.POLLNVAL
		}
	}
}
