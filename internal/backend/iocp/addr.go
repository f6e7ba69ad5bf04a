//go:build windows

package iocp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/weir-io/weir/internal/backend"
)

// sockaddr is an address as Winsock has it.
type sockaddr struct {
	raw  [28]byte // the size of a sockaddr_in6
	size int32
}

// set stores a for a socket of IPv6 or of IPv4. An IPv4 address of an IPv6 socket is
// mapped.
func (s *sockaddr) set(a netip.AddrPort, ipv6 bool) error {
	ip := a.Addr()
	clear(s.raw[:])
	switch {
	case !ipv6 && ip.Unmap().Is4():
		binary.LittleEndian.PutUint16(s.raw[:], windows.AF_INET)
		binary.BigEndian.PutUint16(s.raw[2:], a.Port())
		four := ip.Unmap().As4()
		copy(s.raw[4:], four[:])
		s.size = 16
		return nil
	case ipv6 && ip.IsValid():
		binary.LittleEndian.PutUint16(s.raw[:], windows.AF_INET6)
		binary.BigEndian.PutUint16(s.raw[2:], a.Port())
		sixteen := ip.As16()
		copy(s.raw[8:], sixteen[:])
		if zone := ip.Zone(); zone != "" {
			n, err := strconv.ParseUint(zone, 10, 32)
			if err != nil {
				i, err := net.InterfaceByName(zone)
				if err != nil {
					return syscall.EADDRNOTAVAIL
				}
				n = uint64(i.Index)
			}
			binary.LittleEndian.PutUint32(s.raw[24:], uint32(n))
		}
		s.size = 28
		return nil
	default:
		return syscall.EAFNOSUPPORT
	}
}

// get returns what s holds.
func (s *sockaddr) get() netip.AddrPort { return addrPort(s.raw[:]) }

// addrPort reads a sockaddr_in or sockaddr_in6. A mapped address is an IPv4 one.
func addrPort(raw []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(raw[2:])
	switch binary.LittleEndian.Uint16(raw) {
	case windows.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port)
	case windows.AF_INET6:
		if len(raw) < 28 {
			return netip.AddrPort{}
		}
		ip := netip.AddrFrom16([16]byte(raw[8:24])).Unmap()
		if scope := binary.LittleEndian.Uint32(raw[24:]); scope != 0 && ip.Is6() {
			ip = ip.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		return netip.AddrPortFrom(ip, port)
	default:
		return netip.AddrPort{}
	}
}

// rawAddr is what GetAcceptExSockaddrs points to.
func rawAddr(raw *windows.RawSockaddrAny, size int32) netip.AddrPort {
	if raw == nil || size < 16 {
		return netip.AddrPort{}
	}
	return addrPort(unsafe.Slice((*byte)(unsafe.Pointer(raw)), size))
}

// unmap writes an IPv4 address as such.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// nameOf is the address of a socket, or of its peer.
func nameOf(s windows.Handle, peer bool) (backend.Addr, error) {
	get := windows.Getsockname
	if peer {
		get = windows.Getpeername
	}
	sa, err := get(s)
	if err != nil {
		return backend.Addr{}, asErrno(err)
	}
	a := backend.Addr{Family: backend.Inet}
	switch sa := sa.(type) {
	case *windows.SockaddrInet4:
		a.IP = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *windows.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 && ip.Is6() {
			ip = ip.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		a.IP = netip.AddrPortFrom(ip, uint16(sa.Port))
	}
	return a, nil
}
