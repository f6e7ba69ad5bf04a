package sys

import (
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// prepareDatagram asks for what the network says of datagrams that were sent:
// an error queue with the address each error is about (ip(7), IP_RECVERR). And it
// asks to be spared what is sent to groups that only others on this machine are
// in, which a socket bound to every address gets otherwise (IP_MULTICAST_ALL).
func prepareDatagram(fd int, spec *backend.Spec) error {
	PrepareInfo(fd, spec)
	if spec.Family != backend.Inet {
		return nil
	}
	if spec.IPv6 {
		if err := setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1); err != nil {
			return err
		}
		// Since Linux 4.20; without it there is more to ignore.
		_ = setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0)
		if !spec.Dual {
			return nil
		}
	}
	if err := setInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0); err != nil {
		return err
	}
	return setInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
}

// SendTo sends the pieces as one datagram without waiting; at most 64 of them
// may be there that are not empty. An error that an earlier datagram caused,
// which the kernel tells whoever calls first, is left to RecvError: the call is
// made again.
func SendTo(fd int, pieces [][]byte, to *Sockaddr, v *Vector) (int, syscall.Errno) {
	used := 0
	for _, p := range pieces {
		if len(p) > 0 {
			used++
		}
	}
	if used > len(v.iov) {
		return 0, unix.EMSGSIZE
	}
	n, bytes := v.Fill(pieces)
	defer v.Clear(n)
	v.hdr.Iov = &v.iov[0]
	v.hdr.SetIovlen(n)
	v.hdr.Name, v.hdr.Namelen = (*byte)(to.Pointer()), to.n
	defer func() { v.hdr.Name, v.hdr.Namelen = nil, 0 }()
	for tries := 0; ; {
		sent, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.hdr)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return int(min(sent, uintptr(bytes))), 0
		case unix.EINTR:
			continue
		case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET,
			unix.ENOPROTOOPT, unix.EPROTO, unix.EACCES, unix.EMSGSIZE, unix.EOPNOTSUPP:
			// One that is about this datagram comes again. There can be as many
			// of the others as were sent before.
			if tries++; tries < 8 {
				continue
			}
		}
		return 0, errno
	}
}

// ErrorReader is the memory to read error queues with. It must not be used by
// two calls at once, nor be copied.
type ErrorReader struct {
	hdr     unix.Msghdr
	iov     unix.Iovec
	control [256]byte
	data    [1]byte
}

// RecvError takes what the network said of a datagram, and stores in to where
// that went. The errno is 0 where there is nothing; mtu, with EMSGSIZE, is the size
// of packets that would pass. What the socket told the sender itself is left out.
func (r *ErrorReader) RecvError(fd int, to *Sockaddr) (errno syscall.Errno, mtu int) {
	for {
		to.Clear()
		r.iov.Base = &r.data[0]
		r.iov.SetLen(len(r.data))
		r.hdr = unix.Msghdr{Name: (*byte)(to.Pointer()), Namelen: to.n, Iov: &r.iov, Control: &r.control[0]}
		r.hdr.SetIovlen(1)
		r.hdr.SetControllen(len(r.control))
		_, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.hdr)),
			unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, 0
		}
		to.n = r.hdr.Namelen
		if e, mtu := r.cause(int(r.hdr.Controllen)); e != 0 {
			return e, mtu
		}
	}
}

// extendedError is the kernel's struct sock_extended_err.
type extendedError struct {
	errno                   uint32
	origin, kind, code, pad uint8
	info, data              uint32
}

// The origins of extended errors that come from the network.
const (
	originICMP  = 2
	originICMP6 = 3
)

func (r *ErrorReader) cause(n int) (errno syscall.Errno, mtu int) {
	const size = int(unsafe.Sizeof(extendedError{}))
	controls(r.control[:min(n, len(r.control))], func(level, kind int32, p []byte) {
		isError := level == unix.IPPROTO_IP && kind == unix.IP_RECVERR ||
			level == unix.IPPROTO_IPV6 && kind == unix.IPV6_RECVERR
		if !isError || len(p) < size {
			return
		}
		e := (*extendedError)(unsafe.Pointer(&p[0]))
		if e.origin != originICMP && e.origin != originICMP6 {
			return
		}
		errno = syscall.Errno(e.errno)
		if errno == unix.EMSGSIZE {
			mtu = int(e.info)
		}
	})
	return errno, mtu
}

// Source returns the address from which something would be sent to an address,
// by connecting a datagram socket there, which sends nothing.
func Source(to netip.Addr) (netip.Addr, bool) {
	fd, _, err := Open(&backend.Spec{Family: backend.Inet, IPv6: to.Is6(), Datagram: true})
	if err != nil {
		return netip.Addr{}, false
	}
	defer Close(fd)
	var s Sockaddr
	const discard = 9 // any port will do
	a := backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(to, discard)}
	if s.Encode(&a, to.Is6(), fd) != nil || Connect(fd, &s) != 0 {
		return netip.Addr{}, false
	}
	own, err := Name(fd, false)
	return own.IP.Addr(), err == nil
}

// Group puts a datagram socket into a multicast group, or takes it out; see
// backend.Multicaster.
func Group(fd int, group netip.Addr, device string, join bool) error {
	group = group.Unmap().WithZone("")
	if !group.IsMulticast() {
		return unix.EINVAL
	}
	var index uint32
	if device != "" {
		var err error
		if index, err = zoneIndex(fd, device); err != nil {
			return err
		}
	}
	if group.Is4() {
		name := unix.IP_DROP_MEMBERSHIP
		m := unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(index)}
		if join {
			name = unix.IP_ADD_MEMBERSHIP
		}
		if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, name, &m); err != nil || !join || index == 0 {
			return err
		}
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)})
	}
	name := unix.IPV6_LEAVE_GROUP
	if join {
		name = unix.IPV6_JOIN_GROUP
	}
	err := unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, name, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: index})
	if err != nil || !join || index == 0 {
		return err
	}
	return setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, int(index))
}

// OptionsOf is the descriptor of a socket as a backend.Socket.
type OptionsOf int

// Control implements backend.Socket.
func (d OptionsOf) Control(f func(fd uintptr)) error {
	f(uintptr(d))
	return nil
}

// SetOption implements backend.Socket.
func (d OptionsOf) SetOption(o backend.Option, value int) error { return SetOption(int(d), o, value) }
