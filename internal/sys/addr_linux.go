package sys

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// Sockaddr is an address in the kernel's form, in memory that can be handed to
// a system call. The zero value is ready to receive one.
type Sockaddr struct {
	_   [0]uint64 // aligned as the kernel's own structures are
	raw unix.RawSockaddrAny
	n   uint32
}

const (
	sockaddrSize = unix.SizeofSockaddrAny
	pathOffset   = 2                                    // of sun_path in sockaddr_un
	pathMax      = unix.SizeofSockaddrUnix - pathOffset // bytes, with the closing NUL
	sizeofRFCOMM = uint32(unsafe.Sizeof(unix.RawSockaddrRFCOMM{}))
)

// Pointer returns a pointer to the address, for calls that read or fill it. The memory
// belongs to s.
func (s *Sockaddr) Pointer() unsafe.Pointer { return unsafe.Pointer(&s.raw) }

// Len returns a pointer to the length that Encode or the kernel stored. Before a call
// that fills s, Clear sets it to the room available.
func (s *Sockaddr) Len() *uint32 { return &s.n }

// Clear makes s ready to be filled by the kernel.
func (s *Sockaddr) Clear() {
	s.raw.Addr.Family = unix.AF_UNSPEC
	s.n = sockaddrSize
}

func (s *Sockaddr) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&s.raw)), sockaddrSize)
}

// Encode stores a; if a is an IP address, ipv6 names the family of the socket. For an
// IPv6 socket an IPv4 address is stored in its mapped form; an unset address is the
// wildcard. fd is any open socket: it is used to look up the number of a named zone. A
// Unix path starting with "@" is an abstract name; an empty one asks bind to choose an
// abstract name.
func (s *Sockaddr) Encode(a *backend.Addr, ipv6 bool, fd int) error {
	s.raw = unix.RawSockaddrAny{}
	switch a.Family {
	case backend.Inet:
		if ipv6 {
			return s.encode6(a.IP, fd)
		}
		return s.encode4(a.IP)
	case backend.Unix:
		return s.encodeUnix(a.Path)
	case backend.Vsock:
		sa := (*unix.RawSockaddrVM)(s.Pointer())
		sa.Family = unix.AF_VSOCK
		sa.Cid, sa.Port = a.Vsock()
		s.n = unix.SizeofSockaddrVM
		return nil
	case backend.RFCOMM:
		sa := (*unix.RawSockaddrRFCOMM)(s.Pointer())
		sa.Family = unix.AF_BLUETOOTH
		device, channel := a.RFCOMM()
		slices.Reverse(device[:]) // the kernel has the last byte first
		sa.Bdaddr, sa.Channel = device, channel
		s.n = sizeofRFCOMM
		return nil
	case backend.FamilyNone:
	}
	return unix.EAFNOSUPPORT
}

func (s *Sockaddr) encode4(ap netip.AddrPort) error {
	sa := (*unix.RawSockaddrInet4)(s.Pointer())
	sa.Family = unix.AF_INET
	putPort(&sa.Port, ap.Port())
	s.n = unix.SizeofSockaddrInet4
	ip := ap.Addr().Unmap()
	switch {
	case !ip.IsValid():
	case ip.Is4():
		sa.Addr = ip.As4()
	default:
		return unix.EAFNOSUPPORT
	}
	return nil
}

func (s *Sockaddr) encode6(ap netip.AddrPort, fd int) error {
	sa := (*unix.RawSockaddrInet6)(s.Pointer())
	sa.Family = unix.AF_INET6
	putPort(&sa.Port, ap.Port())
	s.n = unix.SizeofSockaddrInet6
	ip := ap.Addr()
	if !ip.IsValid() {
		return nil
	}
	sa.Addr = ip.As16()
	if zone := ip.Zone(); zone != "" {
		index, err := zoneIndex(fd, zone)
		if err != nil {
			return err
		}
		sa.Scope_id = index
	}
	return nil
}

func (s *Sockaddr) encodeUnix(path string) error {
	s.raw.Addr.Family = unix.AF_UNIX
	to := s.bytes()[pathOffset:unix.SizeofSockaddrUnix]
	switch {
	case path == "":
		s.n = pathOffset
	case path[0] == '@':
		if len(path) > pathMax {
			return unix.ENAMETOOLONG
		}
		copy(to[1:], path[1:])
		s.n = uint32(pathOffset + len(path))
	default:
		if len(path) >= pathMax {
			return unix.ENAMETOOLONG
		}
		if strings.IndexByte(path, 0) >= 0 {
			return unix.EINVAL
		}
		copy(to, path)
		s.n = uint32(pathOffset + len(path) + 1)
	}
	return nil
}

// Decode stores what s holds in *a. An IPv4 address in its mapped form, as sockets for
// both families report it, becomes an IPv4 address. A link-local address gets its
// zone's name, looked up through fd, which is any open socket. A Unix path that starts
// with "@" is written "./@..." to tell it from an abstract name.
func (s *Sockaddr) Decode(a *backend.Addr, fd int) {
	*a = backend.Addr{}
	if s.n < pathOffset {
		return
	}
	switch s.raw.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(s.Pointer())
		a.Family = backend.Inet
		a.IP = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(&sa.Port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(s.Pointer())
		a.Family = backend.Inet
		ip := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && ip.Is6() {
			ip = ip.WithZone(zoneName(fd, sa.Scope_id))
		}
		a.IP = netip.AddrPortFrom(ip, port(&sa.Port))
	case unix.AF_UNIX:
		a.Family = backend.Unix
		a.Path = s.unixPath()
	case unix.AF_VSOCK:
		sa := (*unix.RawSockaddrVM)(s.Pointer())
		*a = backend.VsockAddr(sa.Cid, sa.Port)
	case unix.AF_BLUETOOTH:
		sa := (*unix.RawSockaddrRFCOMM)(s.Pointer())
		device := sa.Bdaddr
		slices.Reverse(device[:])
		*a = backend.RFCOMMAddr(device, sa.Channel)
	}
}

func (s *Sockaddr) unixPath() string {
	from := s.bytes()[pathOffset:min(s.n, unix.SizeofSockaddrUnix)]
	if len(from) == 0 {
		return ""
	}
	if from[0] == 0 {
		return "@" + string(from[1:])
	}
	path := string(from)
	if i := strings.IndexByte(path, 0); i >= 0 {
		path = path[:i]
	}
	if path[0] == '@' {
		path = "./" + path
	}
	return path
}

// The kernel keeps ports in network order in a field that Go sees as a number in the
// host's order.
func putPort(field *uint16, port uint16) {
	b := (*[2]byte)(unsafe.Pointer(field))
	b[0], b[1] = byte(port>>8), byte(port)
}

func port(field *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(field))
	return uint16(b[0])<<8 | uint16(b[1])
}

// zoneIndex finds the interface that an IPv6 zone denotes: by name, else by number.
func zoneIndex(fd int, zone string) (uint32, error) {
	ifr, err := unix.NewIfreq(zone)
	if err == nil {
		if err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err == nil {
			return ifr.Uint32(), nil
		}
	}
	if n, perr := strconv.ParseUint(zone, 10, 32); perr == nil {
		return uint32(n), nil
	}
	return 0, unix.ENODEV
}

// zoneName is the reverse of zoneIndex; an interface that is gone is named by
// its number.
func zoneName(fd int, index uint32) string {
	// An ifreq has to start with some name; the call overwrites it.
	if ifr, err := unix.NewIfreq("lo"); err == nil {
		ifr.SetUint32(index)
		if unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr) == nil {
			return ifr.Name()
		}
	}
	return strconv.FormatUint(uint64(index), 10)
}

// Name returns the address that fd is bound to, or its peer's.
func Name(fd int, peer bool) (backend.Addr, error) {
	var (
		s Sockaddr
		a backend.Addr
	)
	if errno := name(fd, peer, &s); errno != 0 {
		return a, errno
	}
	s.Decode(&a, fd)
	return a, nil
}

func name(fd int, peer bool, s *Sockaddr) syscall.Errno {
	trap := uintptr(unix.SYS_GETSOCKNAME)
	if peer {
		trap = unix.SYS_GETPEERNAME
	}
	s.Clear()
	_, _, errno := syscall.RawSyscall(trap, uintptr(fd), uintptr(s.Pointer()), uintptr(unsafe.Pointer(&s.n)))
	return errno
}

// Connected reports whether fd has a peer: errno is 0, or says why not.
func Connected(fd int) syscall.Errno {
	var s Sockaddr
	return name(fd, true, &s)
}
