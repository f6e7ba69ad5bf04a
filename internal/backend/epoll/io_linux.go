package epoll

import (
	"errors"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
	"golang.org/x/sys/unix"
)

// read tries to read and keeps the hints of s up to date.
func (b *Backend) read(s *slot, p []byte) (n int, errno syscall.Errno) {
	b.calls.Read++
	fd := int(s.fd)
	switch s.class {
	case sys.Socket:
		n, errno = sys.Recv(fd, p)
	case sys.Stream:
		n, errno = sys.Read(fd, p)
		if errno == unix.EIO && s.flags&master != 0 {
			return 0, 0 // the other side of the pseudo-terminal is closed
		}
	case sys.Plain:
		n, errno = sys.ReadSlow(fd, p)
	default:
		if sys.Poll(fd, unix.POLLIN) == 0 {
			errno = unix.EAGAIN
		} else {
			n, errno = sys.ReadSlow(fd, p)
		}
	}
	switch {
	case errno == unix.EAGAIN:
		s.ready &^= canRead | tail
	case errno != 0:
		if broken(errno) {
			s.errno = uint16(errno)
		}
	case n == 0:
		// The kernel reports an error once. If a Hangup got it, it is still how the
		// stream ended.
		return 0, s.err()
	case n < len(p) && s.flags&inet != 0 && s.ready&tail == 0:
		// TCP has given all it had. Others stop at the end of a message (one with
		// descriptors, a line of a terminal) although more may follow.
		s.ready &^= canRead
	}
	return n, errno
}

// broken reports whether errno is one that ends a connection, which the kernel reports
// once and then shows as an end of stream.
func broken(errno syscall.Errno) bool {
	switch errno {
	case unix.ECONNRESET, unix.ECONNABORTED, unix.ECONNREFUSED, unix.ETIMEDOUT,
		unix.EHOSTUNREACH, unix.ENETUNREACH:
		return true
	}
	return false
}

// write tries to write the pieces of op and keeps the hints of s up to date.
func (b *Backend) write(s *slot, op *backend.Op) (n int, errno syscall.Errno) {
	one, several := pieces(op.Vec)
	if len(one) == 0 {
		return 0, 0
	}
	b.calls.Write++
	fd := int(s.fd)
	switch {
	case s.class == sys.Polled:
		n, errno = writePolled(fd, one)
	case s.class == sys.Socket && several:
		n, errno = sys.SendVec(fd, op.Vec, &b.vector)
	case s.class == sys.Socket:
		n, errno = sys.Send(fd, one)
	case several:
		n, errno = sys.WriteVec(fd, op.Vec, &b.vector, s.class == sys.Plain)
	case s.class == sys.Plain:
		n, errno = sys.WriteSlow(fd, one)
	default:
		n, errno = sys.Write(fd, one)
	}
	switch {
	case errno == unix.EAGAIN && s.flags&master != 0 && sys.Deserted(fd):
		errno = unix.EIO
	case errno == unix.EAGAIN:
		s.ready &^= canWrite
	case errno == unix.EPIPE && s.err() != 0:
		errno = s.err() // what broke it, reported earlier to a Hangup
	case errno == 0 && n == 0:
		errno = unix.EIO // otherwise a device that takes nothing would be tried for ever
	}
	return n, errno
}

// writePolled writes to a pipe or terminal in blocking mode: only as much as is sure to
// fit.
func writePolled(fd int, p []byte) (int, syscall.Errno) {
	if sys.Poll(fd, unix.POLLOUT) == 0 {
		return 0, unix.EAGAIN
	}
	return sys.WriteSlow(fd, p[:min(len(p), sys.PipeAtomic)])
}

// pieces returns the first piece that is not empty, and whether there are
// more.
func pieces(vec [][]byte) (one []byte, several bool) {
	for _, p := range vec {
		if len(p) == 0 {
			continue
		}
		if one != nil {
			return one, true
		}
		one = p
	}
	return one, false
}

func (b *Backend) connect(s *slot, op *backend.Op) syscall.Errno {
	if op.Addr == nil {
		return unix.EINVAL
	}
	if s.class != sys.Socket {
		return unix.ENOTSOCK
	}
	fd := int(s.fd)
	if err := b.sockaddr.Encode(op.Addr, s.flags&ipv6 != 0, fd); err != nil {
		return asErrno(err)
	}
	if s.flags&blocks != 0 {
		// No one else uses a socket that is not connected yet as a stream.
		if err := unix.SetNonblock(fd, true); err != nil {
			return asErrno(err)
		}
		s.flags &^= blocks
	}
	b.calls.Connect++
	s.ready &^= canWrite
	// EAGAIN is final here: it means that a Unix listener's backlog is full, and
	// nothing reports when that changes.
	return sys.Connect(fd, &b.sockaddr)
}

func asErrno(err error) syscall.Errno {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return unix.EINVAL
}

// splice moves bytes between the handle of op and its pipe. stuck is true if it is the
// pipe that is full, or empty: waiting for the handle would not help.
func (b *Backend) splice(s *slot, op *backend.Op) (n int, errno syscall.Errno, stuck bool) {
	b.calls.Splice++
	pipe := int(op.Peer)
	from, to, events := int(s.fd), pipe, int16(unix.POLLOUT)
	if op.Kind == backend.SpliceOut {
		from, to, events = to, from, unix.POLLIN
	}
	n, errno = sys.Splice(from, to, int(op.Max))
	if errno == unix.EAGAIN {
		stuck = sys.Poll(pipe, events)&events == 0
	}
	return n, errno, stuck
}
