package sys

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// prepareDatagram asks for what the network says of datagrams that were sent:
// an error queue with the address each error is about (ip(7), IP_RECVERR).
func prepareDatagram(fd int, spec *backend.Spec) error {
	PrepareInfo(fd, spec)
	if spec.Family != backend.Inet {
		return nil
	}
	if err := OwnGroups(fd, spec); err != nil {
		return err
	}
	if spec.IPv6 {
		if err := setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1); err != nil {
			return err
		}
		if !spec.Dual {
			return nil
		}
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

// OwnGroups asks to be spared what is sent to groups that only others on this machine
// are in, which an IP socket bound to every address gets otherwise (IP_MULTICAST_ALL).
func OwnGroups(fd int, spec *backend.Spec) error {
	if spec.IPv6 {
		// Since Linux 4.20; without it there is more to ignore.
		_ = setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0)
		if !spec.Dual {
			return nil
		}
	}
	return setInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0)
}

// Group puts a datagram socket into a multicast group, or takes it out; see
// backend.Multicaster.
func Group(fd int, group, source netip.Addr, device string, join bool) error {
	group, source = group.Unmap().WithZone(""), source.Unmap().WithZone("")
	if !group.IsMulticast() || source.IsValid() && (source.Is4() != group.Is4() || source.IsMulticast() || source.IsUnspecified()) {
		return unix.EINVAL
	}
	var index uint32
	if device != "" {
		var err error
		if index, err = zoneIndex(fd, device); err != nil {
			return err
		}
	}
	var err error
	switch {
	case source.IsValid():
		err = groupSource(fd, group, source, index, join)
	case group.Is4():
		name := unix.IP_DROP_MEMBERSHIP
		if join {
			name = unix.IP_ADD_MEMBERSHIP
		}
		err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, name, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(index)})
	default:
		name := unix.IPV6_LEAVE_GROUP
		if join {
			name = unix.IPV6_JOIN_GROUP
		}
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, name, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: index})
	}
	if err != nil || !join || index == 0 {
		return err
	}
	return groupDevice(fd, index, !group.Is4(), group.Is4())
}

// groupSource joins what one source sends to a group (RFC 3678).
func groupSource(fd int, group, source netip.Addr, index uint32, join bool) error {
	// struct group_source_req has the index of the interface and two struct
	// sockaddr_storage, which are aligned as pointers are.
	const align, storage = int(unsafe.Sizeof(uintptr(0))), 128
	req := make([]byte, align+2*storage)
	binary.NativeEndian.PutUint32(req, index)
	put := func(at []byte, a netip.Addr) {
		if a.Is4() { // struct sockaddr_in: family, port, address
			binary.NativeEndian.PutUint16(at, unix.AF_INET)
			copy(at[4:], a.AsSlice())
			return
		}
		binary.NativeEndian.PutUint16(at, unix.AF_INET6) // struct sockaddr_in6: family, port, flow, address
		copy(at[8:], a.AsSlice())
	}
	put(req[align:], group)
	put(req[align+storage:], source)
	level, name := unix.IPPROTO_IPV6, unix.MCAST_LEAVE_SOURCE_GROUP
	if group.Is4() {
		level = unix.IPPROTO_IP
	}
	if join {
		name = unix.MCAST_JOIN_SOURCE_GROUP
	}
	return unix.SetsockoptString(fd, level, name, string(req))
}

// GroupDevice chooses the device by which a datagram socket sends to groups.
func GroupDevice(fd int, device string) error {
	index, err := zoneIndex(fd, device)
	if err != nil {
		return err
	}
	domain, err := getInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	four := domain == unix.AF_INET
	if !four {
		only, err := getInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		four = err == nil && only == 0
	}
	return groupDevice(fd, index, domain == unix.AF_INET6, four)
}

func groupDevice(fd int, index uint32, six, four bool) error {
	if six {
		if err := setInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, int(index)); err != nil || !four {
			return err
		}
	}
	return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)})
}

// OptionsOf is the descriptor of a socket as a backend.Socket.
type OptionsOf int

var _ backend.Socket = (*OptionsOf)(nil)

// Control calls f with the descriptor.
func (d OptionsOf) Control(f func(fd uintptr)) error {
	f(uintptr(d))
	return nil
}

// SetOption sets a socket option.
func (d OptionsOf) SetOption(o backend.Option, value int) error { return SetOption(int(d), o, value) }
