package weir

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

// network is what a stream runs over.
type network uint8

const (
	netTCP network = iota
	netUnix
	netPipe  // one or two pipes, or plain files
	netTTY   // a terminal
	netOther // something a backend adopted
	netCarried
)

func (n network) String() string {
	return [...]string{"tcp", "unix", "pipe", "tty", "conn", "layer"}[n]
}

// socket reports whether the system may still be sending after a close.
func (n network) socket() bool { return n == netTCP || n == netUnix }

// pipe reports whether a reset means nothing there.
func (n network) pipe() bool { return n == netPipe || n == netTTY }

// FileAddr is the address of a stream that has none on a network: a pipe, a
// terminal, standard input and output.
type FileAddr struct {
	Net  string // "pipe", "tty", "conn"
	Name string // such as "stdin" or "fd 3"
}

// Network implements net.Addr.
func (a *FileAddr) Network() string { return a.Net }

func (a *FileAddr) String() string { return a.Name }

// LocalAddr implements Transport.
func (s *stream) LocalAddr() net.Addr {
	if s.flags&fCarried != 0 {
		return s.carriedAddr(false)
	}
	s.captureLocal()
	return s.addr(netip.AddrPortFrom(s.localIP, s.localPort), func(x *extras) string { return x.localPath })
}

// RemoteAddr implements Transport.
func (s *stream) RemoteAddr() net.Addr {
	if s.flags&fCarried != 0 {
		return s.carriedAddr(true)
	}
	return s.addr(netip.AddrPortFrom(s.remoteIP, s.remotePort), func(x *extras) string { return x.remotePath })
}

func (s *stream) addr(ip netip.AddrPort, path func(*extras) string) net.Addr {
	switch s.net {
	case netTCP:
		return net.TCPAddrFromAddrPort(unmap(ip))
	case netUnix:
		a := &net.UnixAddr{Net: "unix"}
		if s.x != nil {
			a.Name = path(s.x)
		}
		return a
	default:
		a := &FileAddr{Net: s.net.String(), Name: s.net.String()}
		if s.x != nil && s.x.name != "" {
			a.Name = s.x.name
		}
		return a
	}
}

// unmap turns an IPv4 address that came through an IPv6 socket back.
func unmap(ip netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ip.Addr().Unmap(), ip.Port())
}

// captureLocal asks for the own address once, at the latest before the close.
func (s *stream) captureLocal() {
	if s.rh == backend.None || s.localIP.IsValid() || s.net != netTCP && (s.net != netUnix || s.x != nil && s.x.localPath != "") {
		return
	}
	if a, err := s.loop.be.Name(s.rh, false); err == nil {
		s.setAddr(&a, true)
	}
}

func (s *stream) setAddr(a *backend.Addr, own bool) {
	switch {
	case a.Family == backend.Inet && own:
		s.localIP, s.localPort = a.IP.Addr(), a.IP.Port()
	case a.Family == backend.Inet:
		s.remoteIP, s.remotePort = a.IP.Addr(), a.IP.Port()
	case a.Path != "" && own:
		s.extra().localPath = a.Path
	case a.Path != "":
		s.extra().remotePath = a.Path
	}
}

// name is how logs call the connection.
func (s *stream) name() string {
	if s.flags&fCarried != 0 {
		if u, ok := s.Unwrap().(*stream); ok {
			return u.name()
		}
	}
	if !s.net.socket() {
		return s.RemoteAddr().String()
	}
	l, r := s.LocalAddr().String(), s.RemoteAddr().String()
	return s.net.String() + " " + l + " to " + r
}

// netAddr turns a backend's address into package net's.
func netAddr(a backend.Addr) net.Addr {
	if a.Family == backend.Unix {
		return &net.UnixAddr{Net: "unix", Name: a.Path}
	}
	return net.TCPAddrFromAddrPort(unmap(a.IP))
}

// sysError names the system call of an error that came from one.
func sysError(call string, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return os.NewSyscallError(call, errno)
	}
	return err
}
