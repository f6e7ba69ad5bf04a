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
)

func (n network) String() string {
	return [...]string{"tcp", "unix", "pipe", "tty", "conn"}[n]
}

// socket reports whether the system may still be sending after a close.
func (n network) socket() bool { return n == netTCP || n == netUnix }

// pipe reports whether the network has no resets.
func (n network) pipe() bool { return n == netPipe || n == netTTY }

// FileAddr is the address of a stream that has none on a network: a pipe, a
// terminal, standard input and output.
type FileAddr struct {
	Net  string // "pipe", "tty", "conn"
	Name string // such as "stdin" or "fd 3"
}

var _ net.Addr = (*FileAddr)(nil)

// Network is the kind of stream: "pipe", "tty", "conn".
func (a *FileAddr) Network() string { return a.Net }

func (a *FileAddr) String() string { return a.Name }

func (s *stream) LocalAddr() net.Addr { return s.lower.addr(false) }

func (s *stream) RemoteAddr() net.Addr { return s.lower.addr(true) }

// unmap turns an IPv4 address that came through an IPv6 socket back into a plain one.
func unmap(ip netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ip.Addr().Unmap(), ip.Port())
}

// name is the connection's name in logs.
func (s *stream) name() string {
	if u, ok := s.Unwrap().(*stream); ok {
		return u.name()
	}
	if k, ok := s.lower.(*socket); ok && k.net.socket() {
		return k.net.String() + " " + k.addr(false).String() + " to " + k.addr(true).String()
	}
	return s.RemoteAddr().String()
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
