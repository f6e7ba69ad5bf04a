package load

import (
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the load go straight to the kernel: the runtime need not
// know of calls that do not block. Only the wait tells it.

func read(fd int, p []byte) (int, unix.Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), e
}

// discard takes up to n bytes from a socket's queue without copying them.
func discard(fd, n int) (int, unix.Errno) {
	got, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, uintptr(n), unix.MSG_TRUNC, 0, 0)
	return int(got), e
}

func write(fd int, p []byte) (int, unix.Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), e
}

// poller is an epoll instance whose events carry an index.
type poller struct {
	fd     int
	events [256]unix.EpollEvent
	yield  time.Time // when to let the scheduler see us again
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &poller{fd: fd}, err
}

func (p *poller) add(fd, index int, events uint32) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(index)})
}

func (p *poller) modify(fd, index int, events uint32) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(index)})
}

func (p *poller) remove(fd int) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil)
}

// wait waits at most ms milliseconds; with 0 it only polls.
func (p *poller) wait(ms int) ([]unix.EpollEvent, error) {
	if now := time.Now(); now.After(p.yield) {
		// Otherwise the runtime's monitor takes the processor away at every call.
		runtime.Gosched()
		p.yield = now.Add(4 * time.Millisecond)
	}
	var n uintptr
	var e syscall.Errno
	if ms == 0 {
		n, _, e = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), 0, 0, 0)
	} else {
		n, _, e = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), uintptr(ms), 0, 0)
	}
	if e == unix.EINTR {
		return nil, nil
	}
	if e != 0 {
		return nil, e
	}
	return p.events[:n], nil
}

// dialer connects to one address, from one of several loopback addresses in
// turn so that ports last.
type dialer struct {
	to      unix.SockaddrInet4
	sources int
	next    int
}

func newDialer(addr string, sources int) (*dialer, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	return &dialer{to: unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, sources: sources}, nil
}

// dial returns a connected, non-blocking socket.
func (d *dialer) dial() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	fail := func(what string, err error) (int, error) {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", what, err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if d.sources > 1 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		d.next = (d.next + 1) % d.sources
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(1 + d.next)}}); err != nil {
			return fail("bind", err)
		}
	}
	// A connect over loopback is done when the call returns, unless the server's
	// queue is full; then it takes as long as the limit.
	limit := unix.Timeval{Sec: 10}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	for {
		err := unix.Connect(fd, &d.to)
		if err == nil || err == unix.EISCONN {
			break
		}
		if err != unix.EINTR && err != unix.EALREADY {
			return fail("connect", err)
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return fail("non-blocking", err)
	}
	return fd, nil
}
