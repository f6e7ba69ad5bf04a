// Package rfc6724 sorts the addresses of a name in the order in which to try them (RFC
// 6724, Default Address Selection for IPv6). It makes no system call: its caller says
// which address the system would send from.
package rfc6724

import (
	"math/bits"
	"net/netip"
	"slices"
)

// destination is an address to connect to, with the properties that RFC 6724 compares.
type destination struct {
	addr    netip.Addr
	source  netip.Addr // the address the system would send from
	usable  bool       // the system can send there
	scope   uint8
	match   bool // source and destination have the same scope
	labels  bool // and the same label
	rank    uint8
	natural uint8 // how many leading bits the two have in common
}

// Sort sorts addresses in the order in which to try them (RFC 6724, 6); equal ones keep
// their order. Rules 3, 4 and 7, about deprecated and home addresses and tunnels, are
// left out: the system does not report these. So is rule 9 for IPv4, whose prefixes say
// nothing about distance.
func Sort(addrs []netip.Addr, source func(netip.Addr) (netip.Addr, bool)) []netip.Addr {
	if len(addrs) < 2 {
		return addrs
	}
	all := make([]destination, len(addrs))
	for i, a := range addrs {
		all[i] = weigh(a, source)
	}
	slices.SortStableFunc(all, func(a, b destination) int {
		switch {
		case a.usable != b.usable: // 1: avoid unusable destinations
			return first(a.usable)
		case a.match != b.match: // 2: prefer matching scope
			return first(a.match)
		case a.labels != b.labels: // 5: prefer matching label
			return first(a.labels)
		case a.rank != b.rank: // 6: prefer higher precedence
			return int(b.rank) - int(a.rank)
		case a.scope != b.scope: // 8: prefer smaller scope
			return int(a.scope) - int(b.scope)
		case a.addr.Is6() && b.addr.Is6(): // 9: use longest matching prefix
			return int(b.natural) - int(a.natural)
		}
		return 0
	})
	sorted := make([]netip.Addr, len(all))
	for i := range all {
		sorted[i] = all[i].addr
	}
	return sorted
}

// first is the comparison result if the first of two is better, or else the second.
func first(better bool) int {
	if better {
		return -1
	}
	return 1
}

func weigh(a netip.Addr, source func(netip.Addr) (netip.Addr, bool)) destination {
	a = a.Unmap()
	c := destination{addr: a, scope: scopeOf(a)}
	p := policyOf(a)
	c.rank = p.precedence
	if c.source, c.usable = source(a); !c.usable {
		return c
	}
	c.source = c.source.Unmap()
	c.match = scopeOf(c.source) == c.scope
	c.labels = policyOf(c.source).label == p.label
	c.natural = commonPrefix(a, c.source)
	return c
}

// The scopes of RFC 4291, 2.7; those of unicast addresses are as in RFC 6724, 3.1 and
// 3.2.
const (
	scopeLink   = 0x2
	scopeSite   = 0x5
	scopeGlobal = 0xe
)

func scopeOf(a netip.Addr) uint8 {
	switch {
	case a.Is6() && a.IsMulticast():
		return a.As16()[1] & 0xf
	case a.IsLoopback() || a.IsLinkLocalUnicast():
		return scopeLink
	case a.Is6() && a.As16()[0] == 0xfe && a.As16()[1]&0xc0 == 0xc0: // deprecated site-local
		return scopeSite
	}
	return scopeGlobal
}

// policy is a line of the policy table.
type policy struct {
	prefix            netip.Prefix
	precedence, label uint8
}

// policyOf finds the line of an address in RFC 6724's table (2.1), the longest
// prefixes first.
func policyOf(a netip.Addr) policy {
	a6 := netip.AddrFrom16(a.As16()) // IPv4 in its mapped form, without a zone
	for _, p := range [...]policy{
		{netip.PrefixFrom(netip.IPv6Loopback(), 128), 50, 0},
		{prefix6(0, 0xffff, 96), 35, 4},
		{prefix6(0, 0, 96), 1, 3},
		{prefix6(0x2001, 0, 32), 5, 5},
		{prefix6(0x2002, 0, 16), 30, 2},
		{prefix6(0x3ffe, 0, 16), 1, 12},
		{prefix6(0xfec0, 0, 10), 1, 11},
		{prefix6(0xfc00, 0, 7), 3, 13},
	} {
		if contains(p.prefix, a6) {
			return p
		}
	}
	return policy{precedence: 40, label: 1}
}

func prefix6(w0, w5 uint16, length int) netip.Prefix {
	var b [16]byte
	for i, w := range [...]uint16{0: w0, 5: w5} {
		b[2*i], b[2*i+1] = byte(w>>8), byte(w)
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), length)
}

// contains is netip.Prefix.Contains for addresses that are all IPv6, including mapped
// ones.
func contains(p netip.Prefix, a netip.Addr) bool {
	return int(commonBits(p.Addr(), a)) >= p.Bits()
}

// commonPrefix is how many leading bits two addresses of one family have in common; for
// IPv6 at most 64, since the rest identifies the interface.
func commonPrefix(a, b netip.Addr) uint8 {
	if a.Is4() != b.Is4() {
		return 0
	}
	return min(commonBits(a, b), 64)
}

func commonBits(a, b netip.Addr) uint8 {
	x, y := a.As16(), b.As16()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return uint8(8*i + bits.LeadingZeros8(d))
		}
	}
	return 128
}
