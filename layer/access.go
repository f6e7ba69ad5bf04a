package layer

import (
	"fmt"
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

// Check returns nil, or an *AccessError. The unspecified addresses (0.0.0.0, ::),
// which reach this machine, count as loopback too; they, 0.0.0.0/8, broadcast,
// multicast and link-local addresses, where clouds keep their secrets, are
// refused unless a network in Allow names no more than such.
func (r *Access) Check(a netip.Addr) error {
	for _, a := range spellings(a) {
		if p, ok := match(r.Deny, a); ok {
			return &AccessError{Addr: a, Problem: Denied, Network: p}
		}
		if len(r.Allow) > 0 && !contains(r.Allow, a) {
			return &AccessError{Addr: a, Problem: NotListed}
		}
		if p, ok := match(specials(), a); ok && !r.names(a) {
			return &AccessError{Addr: a, Problem: Special, Network: p}
		}
		if a.IsUnspecified() {
			loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
			if a.Is6() {
				loopback = netip.IPv6Loopback()
			}
			if p, ok := match(r.Deny, loopback); ok {
				return &AccessError{Addr: a, Problem: Denied, Network: p}
			}
		}
	}
	return nil
}

// AccessProblem is why an address is not allowed.
type AccessProblem uint8

// The problems.
const (
	Denied    AccessProblem = iota // Deny has it
	NotListed                      // there is an Allow, and it does not have it
	Special                        // nobody means such an address, and no network in Allow names it
)

// AccessError is an address that is not allowed. It is ErrNotAllowed, and so
// fs.ErrPermission.
type AccessError struct {
	Addr    netip.Addr // without a zone; an IPv4 address inside another by itself
	Problem AccessProblem
	Network netip.Prefix // that Addr is in, of Deny or of the special ones; not valid where NotListed
}

func (e *AccessError) Error() string {
	switch e.Problem {
	case Denied:
		return fmt.Sprintf("not allowed by the rules (%v is in %v, which is denied)", e.Addr, e.Network)
	case NotListed:
		return fmt.Sprintf("not allowed by the rules (%v is in no network that is allowed)", e.Addr)
	case Special:
	}
	what := "an address of this network (0.0.0.0/8)"
	switch {
	case e.Addr.IsUnspecified():
		what = "the unspecified address"
	case e.Addr.IsLinkLocalUnicast():
		what = "link-local"
	case e.Addr.IsMulticast():
		what = "multicast"
	case e.Network.Bits() == 32:
		what = "broadcast"
	}
	return fmt.Sprintf("not allowed by default (%v is %s)", e.Addr, what)
}

// Unwrap returns ErrNotAllowed.
func (e *AccessError) Unwrap() error { return ErrNotAllowed }

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
func specials() []netip.Prefix {
	var linkLocal, multicast [16]byte
	linkLocal[0], linkLocal[1], multicast[0] = 0xfe, 0x80, 0xff
	return []netip.Prefix{
		netip.PrefixFrom(netip.IPv4Unspecified(), 8),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254}), 16),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 32),
		netip.PrefixFrom(netip.IPv6Unspecified(), 128),
		netip.PrefixFrom(netip.AddrFrom16(linkLocal), 10),
		netip.PrefixFrom(netip.AddrFrom16(multicast), 8),
	}
}

// match finds the network of ps that has a.
func match(ps []netip.Prefix, a netip.Addr) (netip.Prefix, bool) {
	for _, p := range ps {
		if p.Contains(a) || a.Is4() && p.Addr().Is4In6() && p.Bits() >= 96 && netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

func contains(ps []netip.Prefix, a netip.Addr) bool {
	_, ok := match(ps, a)
	return ok
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
