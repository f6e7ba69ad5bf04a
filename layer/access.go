package layer

import (
	"net"
	"net/netip"
)

// Access are rules about addresses: of peers, or of destinations once they are
// resolved, which is when rules about names mean anything. A rule for an IPv4
// address holds for it however it is written: mapped into IPv6, or translated
// (64:ff9b::/96, RFC 6052; 2002::/16, RFC 3056). The zero Access allows
// everything but what nobody means: see Check. It does not change, and any
// goroutine may use it.
type Access struct {
	// Allow are the networks that are allowed; empty: all.
	Allow []netip.Prefix
	// Deny are exceptions from Allow.
	Deny []netip.Prefix
}

// Check returns nil, or ErrNotAllowed. The unspecified addresses (0.0.0.0, ::),
// which reach this machine, count as loopback too; they, 0.0.0.0/8, broadcast,
// multicast and link-local addresses, where clouds keep their secrets, are
// refused unless a network in Allow names no more than such.
func (r *Access) Check(a netip.Addr) error {
	for _, a := range spellings(a) {
		if contains(r.Deny, a) || len(r.Allow) > 0 && !contains(r.Allow, a) {
			return ErrNotAllowed
		}
		if special(a) && !r.names(a) {
			return ErrNotAllowed
		}
		if a.IsUnspecified() {
			loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
			if a.Is6() {
				loopback = netip.IPv6Loopback()
			}
			if contains(r.Deny, loopback) {
				return ErrNotAllowed
			}
		}
	}
	return nil
}

// CheckAddr is Check for an address of a connection; one without an IP address
// is refused.
func (r *Access) CheckAddr(a net.Addr) error {
	ap, ok := addrPortOf(a)
	if !ok {
		return ErrNotAllowed
	}
	return r.Check(ap.Addr())
}

// names reports whether Allow has a network of a that is all special.
func (r *Access) names(a netip.Addr) bool {
	for _, p := range r.Allow {
		for _, s := range specials() {
			if p.Contains(a) && p.Bits() >= s.Bits() && s.Contains(p.Addr()) {
				return true
			}
		}
	}
	return false
}

// specials are the networks that nobody means.
func specials() [7]netip.Prefix {
	var linkLocal, multicast [16]byte
	linkLocal[0], linkLocal[1], multicast[0] = 0xfe, 0x80, 0xff
	return [...]netip.Prefix{
		netip.PrefixFrom(netip.IPv4Unspecified(), 8),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254}), 16),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 32),
		netip.PrefixFrom(netip.IPv6Unspecified(), 128),
		netip.PrefixFrom(netip.AddrFrom16(linkLocal), 10),
		netip.PrefixFrom(netip.AddrFrom16(multicast), 8),
	}
}

func special(a netip.Addr) bool {
	for _, s := range specials() {
		if s.Contains(a) {
			return true
		}
	}
	return false
}

func contains(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) || a.Is4() && p.Addr().Is4In6() && p.Bits() >= 96 && netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Contains(a) {
			return true
		}
	}
	return false
}

// spellings are the addresses that packets to a may reach: a, and an IPv4
// address inside it.
func spellings(a netip.Addr) []netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() || !a.IsValid() {
		return []netip.Addr{a}
	}
	b := a.As16()
	switch {
	case [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b}:
		return []netip.Addr{a, netip.AddrFrom4([4]byte(b[12:]))}
	case b[0] == 0x20 && b[1] == 2:
		return []netip.Addr{a, netip.AddrFrom4([4]byte(b[2:6]))}
	}
	return []netip.Addr{a}
}
