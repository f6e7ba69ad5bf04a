package sys

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// Open makes the socket that spec describes, non-blocking and close-on-exec, bound and
// listening if spec says so. The descriptor belongs to the caller. A listener on a Unix
// path comes with the Bound file, to be removed when the listener closes; otherwise it
// is nil. Errors name the call and unwrap to a syscall.Errno.
func Open(spec *backend.Spec) (fd int, file *Bound, err error) {
	domain, protocol := unix.AF_INET, 0
	switch {
	case spec.Family == backend.Unix:
		domain = unix.AF_UNIX
	case spec.Family == backend.Vsock:
		domain = unix.AF_VSOCK
	case spec.Family == backend.RFCOMM:
		domain, protocol = unix.AF_BLUETOOTH, unix.BTPROTO_RFCOMM
	case spec.Family != backend.Inet:
		return -1, nil, os.NewSyscallError("socket", unix.EAFNOSUPPORT)
	case spec.IPv6:
		domain = unix.AF_INET6
	}
	if spec.SCTP != nil {
		protocol = unix.IPPROTO_SCTP
	}
	style := unix.SOCK_STREAM
	if spec.Datagram {
		style = unix.SOCK_DGRAM
	}
	style |= unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	fd, err = -1, unix.EPROTONOSUPPORT
	if spec.Multipath && spec.Family == backend.Inet && !spec.Datagram {
		fd, err = unix.Socket(domain, style, unix.IPPROTO_MPTCP)
	}
	if err != nil { // not asked for, not there, or switched off: plain TCP
		fd, err = unix.Socket(domain, style, protocol)
	}
	if err != nil {
		return -1, nil, os.NewSyscallError("socket", err)
	}
	if file, err = prepare(fd, spec); err != nil {
		Close(fd)
		return -1, nil, err
	}
	return fd, file, nil
}

func prepare(fd int, spec *backend.Spec) (*Bound, error) {
	if spec.Family == backend.Inet {
		if err := prepareInet(fd, spec); err != nil {
			return nil, err
		}
	}
	if spec.SCTP != nil {
		if err := prepareSCTP(fd, spec); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	if spec.Datagram {
		if err := prepareDatagram(fd, spec); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	if spec.Device != "" {
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, spec.Device); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	for _, o := range spec.Options {
		switch {
		case o.Option == backend.FastOpen && spec.Backlog > 0:
			continue // this option needs a listening socket
		case o.Option == backend.NoDelay && spec.SCTP != nil:
			continue // prepareSCTP has set SCTP's own
		}
		if err := SetOption(fd, o.Option, o.Value); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	var file *Bound
	if spec.Bind {
		var err error
		if file, err = bind(fd, spec); err != nil {
			return nil, err
		}
		if spec.SCTP != nil {
			if err := bindAlso(fd, spec); err != nil {
				return nil, os.NewSyscallError("bind", err)
			}
		}
	}
	if spec.SCTP != nil {
		if err := beginSCTP(fd, spec); err != nil {
			return nil, os.NewSyscallError("connect", err)
		}
	}
	if spec.Datagram && spec.Peer.Family != backend.FamilyNone {
		var s Sockaddr
		err := s.Encode(&spec.Peer, spec.IPv6, fd)
		if err == nil {
			err = failed(Connect(fd, &s)) // it never waits
		}
		if err != nil {
			file.Remove()
			return nil, os.NewSyscallError("connect", err)
		}
	}
	if spec.Backlog > 0 {
		if err := unix.Listen(fd, spec.Backlog); err != nil {
			file.Remove()
			return nil, os.NewSyscallError("listen", err)
		}
		for _, o := range spec.Options {
			if o.Option != backend.FastOpen {
				continue
			}
			if err := SetOption(fd, o.Option, o.Value); err != nil {
				file.Remove()
				return nil, os.NewSyscallError("setsockopt", err)
			}
		}
	}
	return file, nil
}

func prepareInet(fd int, spec *backend.Spec) error {
	type option struct {
		level, name, value int
		on                 bool
	}
	only := 1
	if spec.Dual {
		only = 0
	}
	// An outgoing socket bound to an address without a port gets its port at connect,
	// when the kernel knows the peer and can share ports between peers.
	late := spec.Bind && !spec.Datagram && spec.Backlog == 0 && spec.Local.IP.Port() == 0 && spec.SCTP == nil
	for _, o := range [...]option{
		{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only, spec.IPv6},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, spec.Backlog > 0 || spec.ReuseAddr},
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, spec.ReusePort},
		{unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1, late},
	} {
		if !o.on {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

func bind(fd int, spec *backend.Spec) (*Bound, error) {
	var s Sockaddr
	if err := s.Encode(&spec.Local, spec.IPv6, fd); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	path := spec.Local.Path
	named := spec.Family == backend.Unix && path != "" && path[0] != '@'
	if named && spec.Mode != 0 {
		// The file is created with the socket's own mode, less the umask: it is never
		// more open than it should be, not even for a moment.
		if err := unix.Fchmod(fd, spec.Mode); err != nil {
			return nil, os.NewSyscallError("fchmod", err)
		}
	}
	if _, _, errno := syscall.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(s.Pointer()), uintptr(s.n)); errno != 0 {
		return nil, os.NewSyscallError("bind", errno)
	}
	if !named || spec.Backlog == 0 && !spec.Datagram {
		return nil, nil
	}
	file, err := findBound(path)
	if err != nil {
		return nil, os.NewSyscallError("stat", err)
	}
	if spec.Mode != 0 {
		if err := file.widen(spec.Mode); err != nil {
			file.Remove()
			return nil, os.NewSyscallError("chmod", err)
		}
	}
	return file, nil
}

// Bound is the file of a listener on a Unix path. A nil *Bound stands for no file.
type Bound struct {
	path     string // absolute: the process may change its directory
	dev, ino uint64
}

func findBound(path string) (*Bound, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	b := &Bound{path: abs}
	b.dev, b.ino, err = socketFile(abs)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func socketFile(path string) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return 0, 0, unix.ENOTSOCK
	}
	return uint64(st.Dev), st.Ino, nil //nolint:unconvert // narrower on mips
}

// Remove removes the file unless another has taken its name since: someone else's
// socket is not ours to remove.
func (b *Bound) Remove() {
	if b == nil {
		return
	}
	if dev, ino, err := socketFile(b.path); err == nil && dev == b.dev && ino == b.ino {
		_ = unix.Unlink(b.path)
	}
}

// widen adds the permission bits that the umask took away. The file is held by a
// descriptor, so that a name replaced meanwhile, for example by a symlink, is detected
// rather than followed.
func (b *Bound) widen(mode uint32) error {
	fd, err := unix.Open(b.path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if uint64(st.Dev) != b.dev || st.Ino != b.ino { //nolint:unconvert // narrower on mips
		return unix.EEXIST
	}
	if st.Mode&0o7777 == mode {
		return nil
	}
	return unix.Chmod(procPath(fd), mode)
}

func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Accept takes a connection from fd, which must not block. The new descriptor belongs
// to the caller and is non-blocking and close-on-exec; from gets the peer's address.
func Accept(fd int, from *Sockaddr) (int, syscall.Errno) {
	for {
		from.Clear()
		n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(from.Pointer()),
			uintptr(unsafe.Pointer(&from.n)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return -1, errno
		}
	}
}

// Connect connects fd, which must not block, to the address. EINPROGRESS means that fd
// becomes writable when the connect has ended; PendingError then says how. A signal in
// between does not change that.
func Connect(fd int, to *Sockaddr) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(to.Pointer()), uintptr(to.n))
	switch errno {
	case unix.EINTR, unix.EALREADY:
		return unix.EINPROGRESS
	case unix.EISCONN: // an association that Open has begun: see beginSCTP
		return 0
	}
	return errno
}

// ShutdownWrite ends writing; reading goes on.
func ShutdownWrite(fd int) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return errno
}

// Close closes fd. The number is free afterwards whatever is returned: closing is never
// tried again. The numbers 0 to 2 are not freed but refer to /dev/null from then on:
// nothing that a library prints may end up in a later socket.
func Close(fd int) syscall.Errno {
	if fd >= 0 && fd <= 2 {
		return closeStandard(fd)
	}
	return closeNumber(fd)
}

func closeNumber(fd int) syscall.Errno {
	// Closing may wait, for a disk or a tty to drain.
	_, _, errno := syscall.Syscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	if errno == unix.EINTR {
		return 0
	}
	return errno
}

func closeStandard(fd int) syscall.Errno {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return closeNumber(fd)
	}
	if null == fd {
		return 0 // it was closed before; now /dev/null has it
	}
	for {
		_, _, errno := syscall.Syscall(unix.SYS_DUP3, uintptr(null), uintptr(fd), 0)
		if errno == unix.EINTR || errno == unix.EBUSY {
			continue
		}
		closeNumber(null)
		return errno
	}
}

// Reset closes fd and, on TCP, resets the connection: bytes not sent yet are dropped
// and the peer gets ECONNRESET.
func Reset(fd int) syscall.Errno {
	// On other sockets, lingering for no time is the same as closing.
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	return Close(fd)
}
