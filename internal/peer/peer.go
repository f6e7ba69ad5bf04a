// Package peer says what counts as one peer where connections are limited: an IPv4
// address, or the network of an IPv6 one.
package peer

import (
	"net"
	"net/netip"
)

// PrefixV6 is how many bits of an IPv6 address identify one peer: whoever has one
// address of a /64 has them all.
const PrefixV6 = 64

// Of is the peer at a transport's address: an IPv4 address, or the first bitsV6 bits of
// an IPv6 one; not valid if there is no IP address.
func Of(a net.Addr, bitsV6 int) netip.Prefix {
	ap, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.Prefix{}
	}
	return Prefix(ap.AddrPort().Addr(), bitsV6)
}

// Prefix is Of for an address, which may be invalid.
func Prefix(addr netip.Addr, bitsV6 int) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() && !addr.IsLinkLocalUnicast() { // all hosts on a link share that prefix
		bits = bitsV6
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
