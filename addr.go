package weir

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
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
	netSCTP
	netVsock
	netRFCOMM
)

func (n network) String() string {
	return [...]string{"tcp", "unix", "pipe", "tty", "conn", "sctp", "vsock", "rfcomm"}[n]
}

// socket reports whether the system may still be sending after a close.
func (n network) socket() bool {
	return n == netTCP || n == netUnix || n == netSCTP || n == netVsock || n == netRFCOMM
}

// inet reports whether the addresses are IP addresses with ports.
func (n network) inet() bool { return n == netTCP || n == netSCTP }

// resets reports whether the peer can be told that the end is not a clean one.
func (n network) resets() bool { return n == netTCP || n == netSCTP }

// splices reports whether the kernel moves bytes in and out without copying them.
func (n network) splices() bool { return n != netSCTP && n != netVsock && n != netRFCOMM }

// halfCloses reports whether one direction can be ended alone. The shutdown of SCTP
// (RFC 9260, 9.2) ends both once what was sent has arrived, and RFCOMM's ends both at once.
func (n network) halfCloses() bool { return n != netTTY && n != netSCTP && n != netRFCOMM }

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

// netAddr turns a backend's address on network n into what package net would have.
func netAddr(n network, a *backend.Addr) net.Addr {
	switch {
	case a.Family == backend.Unix:
		return &net.UnixAddr{Net: "unix", Name: a.Path}
	case a.Family == backend.Vsock:
		cid, port := a.Vsock()
		return VsockAddr{CID: cid, Port: port}
	case a.Family == backend.RFCOMM:
		device, channel := a.RFCOMM()
		return RFCOMMAddr{Device: device, Channel: channel}
	case n == netSCTP:
		return SCTPAddr{unmap(a.IP)}
	}
	return net.TCPAddrFromAddrPort(unmap(a.IP))
}

// networkNamed finds a network by the name that Connect or Listen was given, and cuts the
// family off it: "4", "6" or "" for either.
func networkNamed(name string) (n network, family string, ok bool) {
	base := strings.TrimRight(name, "46")
	family = name[len(base):]
	for _, n := range [...]network{netTCP, netUnix, netSCTP, netVsock, netRFCOMM} {
		if n.String() == base {
			return n, family, family == "" || n.inet() && len(family) == 1
		}
	}
	return 0, "", false
}

// sysError names the system call of an error that came from one.
func sysError(call string, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return os.NewSyscallError(call, errno)
	}
	return err
}
