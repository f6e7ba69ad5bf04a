// Command waiting is an echo server over bare epoll, to compare the ways in
// which a loop in Go can wait:
//
//	raw      a raw system call that blocks: the runtime does not know of it
//	syscall  a system call that the runtime knows of, on a locked thread
//	yield    the same with a runtime.Gosched every 4 ms
//	loose    the same on a goroutine that is locked to no thread
//	poller   the runtime's poller watches the epoll descriptor
//	spin     polls for 50 µs before it waits as yield does
//
// The raw wait gives up after 10 ms; otherwise a collection would never end if
// the wait has the only processor.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/bench/internal/side"
)

// quantum is how long a loop runs before it yields to the scheduler.
const quantum = 4 * time.Millisecond

// server is the loop.
type server struct {
	ep     int
	poller *os.File // ep again, of way poller
	events [256]unix.EpollEvent
	yields bool
	ran    time.Time // when it last yielded
}

func main() {
	way := flag.String("way", "yield", "how to wait: raw, syscall, yield, loose, poller, spin")
	cfg := side.Parse()
	listener, err := net.Listen("tcp", cfg.Addr)
	side.Check(err)
	addr := listener.Addr().String()
	conn, err := listener.(*net.TCPListener).SyscallConn()
	side.Check(err)
	s := &server{ran: time.Now()}
	s.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	side.Check(err)
	fd := -1
	side.Check(conn.Control(func(p uintptr) { fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }))
	side.Check(err)
	side.Check(listener.Close())
	s.watch(fd)

	wait := s.block
	switch *way {
	case "raw":
		wait = s.raw
	case "syscall":
	case "yield", "loose":
		s.yields = true
	case "spin":
		s.yields = true
		wait = s.spin
	case "poller":
		side.Check(unix.SetNonblock(s.ep, true))
		s.poller = os.NewFile(uintptr(s.ep), "epoll")
		c, err := s.poller.SyscallConn()
		side.Check(err)
		wait = func() (n int, errno unix.Errno) {
			_ = c.Read(func(uintptr) bool {
				n, errno = s.poll(0)
				return n > 0 || errno != 0
			})
			return n, errno
		}
	default:
		side.Check(fmt.Errorf("there is no way %q", *way))
	}
	if *way != "loose" && *way != "poller" {
		runtime.LockOSThread()
	}
	go side.Serve(addr)
	s.run(fd, wait)
}

func (s *server) watch(fd int) {
	side.Check(unix.EpollCtl(s.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
}

func (s *server) run(listener int, wait func() (int, unix.Errno)) {
	buf := make([]byte, 64<<10)
	for {
		n, errno := wait()
		if errno != 0 && errno != unix.EINTR {
			side.Check(errno)
		}
		for i := range n {
			fd := int(s.events[i].Fd)
			if fd == listener {
				if c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK); err == nil {
					side.Check(unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
					s.watch(c)
				}
				continue
			}
			s.echo(fd, buf)
		}
		if s.yields {
			if now := time.Now(); now.Sub(s.ran) >= quantum {
				s.ran = now
				runtime.Gosched()
			}
		}
	}
}

// echo answers what is there. The loads of this comparison are small: a message
// that does not fit into the socket ends the connection.
func (s *server) echo(fd int, buf []byte) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return
	}
	if errno == 0 && n > 0 {
		sent, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), n)
		if errno == 0 && sent == n {
			return
		}
	}
	_ = unix.Close(fd)
}

// block waits as ordinary system calls do.
func (s *server) block() (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.ep), uintptr(unsafe.Pointer(&s.events[0])), uintptr(len(s.events)), ^uintptr(0), 0, 0)
	return count(n, errno)
}

// raw waits without the runtime's knowledge.
func (s *server) raw() (int, unix.Errno) { return s.poll(10) }

func (s *server) poll(ms int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.ep), uintptr(unsafe.Pointer(&s.events[0])), uintptr(len(s.events)), uintptr(ms), 0, 0)
	return count(n, errno)
}

func (s *server) spin() (int, unix.Errno) {
	for until := time.Now().Add(50 * time.Microsecond); ; {
		if n, errno := s.poll(0); n > 0 || errno != 0 {
			return n, errno
		}
		if time.Now().After(until) {
			return s.block()
		}
	}
}

func count(n uintptr, errno unix.Errno) (int, unix.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
