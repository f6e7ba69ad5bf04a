// Package zone has one spelling for the zones of IPv6 addresses. A zone may be written as
// the name of an interface or as its number, and systems report names, so that addresses
// with the same meaning are not equal.
package zone

import (
	"net"
	"net/netip"
	"strconv"
)

// Named returns a as a system reports it as a peer's address: a zone that is the number of
// an interface becomes its name, and an address that needs no zone has none. A number that
// no interface has stays.
func Named(a netip.Addr) netip.Addr {
	zone := a.Zone()
	if zone == "" {
		return a
	}
	if !a.IsLinkLocalUnicast() && !a.IsLinkLocalMulticast() && !a.IsInterfaceLocalMulticast() {
		return a.WithZone("") // systems ignore it (RFC 4007, section 6)
	}
	n, err := strconv.ParseUint(zone, 10, 31)
	if err != nil || n == 0 {
		return a
	}
	if _, err := net.InterfaceByName(zone); err == nil {
		return a // its name is a number
	}
	if i, err := net.InterfaceByIndex(int(n)); err == nil {
		return a.WithZone(i.Name)
	}
	return a
}

// NamedPort is Named for an address with a port.
func NamedPort(a netip.AddrPort) netip.AddrPort {
	if a.Addr().Zone() == "" {
		return a
	}
	return netip.AddrPortFrom(Named(a.Addr()), a.Port())
}
