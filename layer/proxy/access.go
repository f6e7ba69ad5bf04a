package proxy

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/weir-io/weir"
)

// Access holds rules about addresses: those of destinations, once their names
// are resolved, since only then does a rule about a name mean anything, or
// those of peers. A rule for an IPv4 address applies to it however it is
// written: mapped into IPv6, or inside an address that is translated or
// tunneled to it (see spellings).
//
// The zero Access is what a proxy for strangers needs. It allows the addresses
// of the public Internet, and refuses those that a proxy can reach only because
// of where it runs:
//
//   - private networks and this machine's own loopback addresses;
//   - addresses with a special meaning: link-local ones and those where clouds
//     answer questions about their machines (metadata), multicast, broadcast
//     and unspecified ones, and those that a network translates as it likes.
//
// Allow names exceptions: an address in such a network is allowed if Allow has
// a network that contains it and is no larger than that one. Allow: 0.0.0.0/0
// names none of them.
//
// An Access must not change while it is in use; any goroutine may use it if Own
// allows that.
type Access struct {
	// Allow lists the networks that are allowed; empty: all.
	Allow []netip.Prefix
	// Deny lists exceptions from Allow.
	Deny []netip.Prefix
	// Private allows private networks and loopback even if they are not named.
	// It is meant for a proxy that itself listens on loopback, whose clients
	// reach those addresses anyway, and for rules about peers.
	Private bool
	// Own returns the addresses that this process listens on, as
	// weir.Loop.ListenAddrs does. CheckAddrPort refuses them, even if Allow
	// names them: a proxy that is asked to connect to itself goes on doing so
	// until it has no descriptors left. nil: there are none.
	Own func() []net.Addr
}

// CheckAddrPort checks a destination: like Check, but it also refuses every
// address at which Own can be reached. It can be passed to weir.WithAddrFilter.
func (r *Access) CheckAddrPort(a netip.AddrPort) error {
	if own := r.own(a); own != nil {
		return &AccessError{Addr: a.Addr().Unmap().WithZone(""), Problem: Own, Listener: own}
	}
	return r.Check(a.Addr())
}

// Filter returns the option that holds a connect on l to the rules:
// weir.WithAddrFilter with CheckAddrPort, in which l's listeners take the place
// of a nil Own. A nil r means the zero Access.
func (r *Access) Filter(l *weir.Loop) weir.ConnectOption {
	var rules Access
	if r != nil {
		rules = *r
	}
	if rules.Own == nil {
		rules.Own = l.ListenAddrs
	}
	return weir.WithAddrFilter(rules.CheckAddrPort)
}

// Check returns nil, or an *AccessError. An unspecified address (0.0.0.0, ::)
// reaches this machine, so rules for loopback apply to it too.
func (r *Access) Check(a netip.Addr) error {
	for _, a := range spellings(a) {
		if p, ok := match(r.Deny, a); ok {
			return &AccessError{Addr: a, Problem: Denied, Network: p}
		}
		if len(r.Allow) > 0 && !contains(r.Allow, a) {
			return &AccessError{Addr: a, Problem: NotListed}
		}
		if p, ok := match(specials, a); ok && !r.names(a, specials) {
			return &AccessError{Addr: a, Problem: Special, Network: p}
		}
		if p, ok := match(privates, a); ok && !r.Private && !r.names(a, privates) {
			return &AccessError{Addr: a, Problem: Private, Network: p}
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

// own returns the address in Own that a leads to, nil if there is none.
func (r *Access) own(a netip.AddrPort) net.Addr {
	if r.Own == nil {
		return nil
	}
	return Reached(a, r.Own())
}

// Reached returns the first of listeners, in the form that
// weir.Loop.ListenAddrs returns them, that a connection to a would reach, or
// nil if there is none.
func Reached(a netip.AddrPort, listeners []net.Addr) net.Addr {
	for _, l := range listeners {
		tcp, ok := l.(*net.TCPAddr)
		if !ok || tcp.Port != int(a.Port()) {
			continue
		}
		at := tcp.AddrPort().Addr().Unmap().WithZone("")
		for _, to := range spellings(a.Addr()) {
			if leadsTo(to, at) {
				return l
			}
		}
	}
	return nil
}

// leadsTo reports whether a connection to one address reaches a listener on
// another, given the same port.
func leadsTo(to, at netip.Addr) bool {
	switch {
	case to == at:
		return true
	case at.IsUnspecified() && (to.IsLoopback() || to.IsUnspecified()):
		return true // a listener on :: may take IPv4 too
	case at.IsUnspecified():
		return ofThisMachine(to)
	}
	// An unspecified address leads to loopback or, on some systems, to another
	// address of this machine.
	return to.IsUnspecified()
}

// ofThisMachine reports whether an interface has the address.
func ofThisMachine(a netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true // it is unknown: be strict, since this is about access
	}
	for _, i := range all {
		if n, ok := i.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(n.IP); ok && own.Unmap() == a {
				return true
			}
		}
	}
	return false
}

// LocalOnly reports whether only this machine can connect to each of the
// addresses that a program listens on: all are loopback addresses or UNIX
// sockets. Access.Private is meant for this case.
func LocalOnly(addrs []net.Addr) bool {
	for _, a := range addrs {
		if a.Network() == "unix" {
			continue
		}
		if ap, ok := addrPortOf(a); !ok || !ap.Addr().IsLoopback() {
			return false
		}
	}
	return true
}

// AccessProblem says why an address is not allowed.
type AccessProblem uint8

// The problems.
const (
	Denied    AccessProblem = iota // Deny has it
	NotListed                      // Allow is not empty, and does not have it
	Special                        // it has a special meaning, and no network in Allow names it
	Private                        // it is private or loopback, no network in Allow names it, and Private is not set
	Own                            // this process listens there
)

// AccessError reports an address that is not allowed. It matches ErrNotAllowed,
// and so fs.ErrPermission.
type AccessError struct {
	Addr     netip.Addr // without a zone; an IPv4 address inside another is given by itself
	Problem  AccessProblem
	Network  netip.Prefix // the network that Addr is in: one of Deny, or one refused by default; not valid for NotListed and Own
	Listener net.Addr     // of Own: the address that the process listens on
}

func (e *AccessError) Error() string {
	switch e.Problem {
	case Denied:
		return fmt.Sprintf("not allowed by the rules (%v is in %v, which is denied)", e.Addr, e.Network)
	case NotListed:
		return fmt.Sprintf("not allowed by the rules (%v is in no network that is allowed)", e.Addr)
	case Own:
		return fmt.Sprintf("never allowed (%v is this process itself, which listens on %v)", e.Addr, e.Listener)
	case Private:
		what := "private"
		if e.Addr.IsLoopback() {
			what = "this machine itself"
		}
		return fmt.Sprintf("not allowed by default (%v is %s)", e.Addr, what)
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
	case e.Network.Addr() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		what = "broadcast"
	case e.Network.IsSingleIP():
		what = "a cloud's metadata service"
	case e.Addr.Is6():
		what = "translated by the network to an unknown address (" + e.Network.String() + ")"
	}
	return fmt.Sprintf("not allowed by default (%v is %s)", e.Addr, what)
}

// Unwrap returns ErrNotAllowed.
func (e *AccessError) Unwrap() error { return ErrNotAllowed }

// CheckAddr is Check for the address of a peer; a peer without an IP address is
// refused.
func (r *Access) CheckAddr(a net.Addr) error {
	ap, ok := addrPortOf(a)
	if !ok {
		return ErrNotAllowed
	}
	return r.Check(ap.Addr())
}

// names reports whether Allow has a network that contains a and lies within
// every network in refused that contains a.
func (r *Access) names(a netip.Addr, refused []netip.Prefix) bool {
	for _, p := range r.Allow {
		if !p.Contains(a) {
			continue
		}
		within := true
		for _, s := range refused {
			within = within && (!s.Contains(a) || p.Bits() >= s.Bits() && s.Contains(p.Addr()))
		}
		if within {
			return true
		}
	}
	return false
}

func prefixes(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// The networks that are refused unless they are named. These lists do not
// change.
var (
	specials = prefixes(
		"0.0.0.0/8", "::/128", // this network, this machine
		"169.254.0.0/16", "fe80::/10", // link-local; 169.254.169.254 and others are metadata
		"100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::254/128", // metadata: Alibaba, Oracle, Amazon
		"224.0.0.0/4", "ff00::/8", "255.255.255.255/32", // multicast, broadcast
		"64:ff9b:1::/48", // translated to IPv4 by rules of the local network (RFC 8215)
	)
	privates = prefixes(
		"127.0.0.0/8", "::1/128",
		"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", // RFC 1918, RFC 6598
		"fc00::/7", "fec0::/10", // RFC 4193, RFC 3879
	)
)

// match finds the network in ps that contains a.
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

// spellings returns the addresses that packets to a may reach: a itself, and
// the IPv4 addresses inside it. A mapped address (::ffff:0:0/96) is the IPv4
// address itself. Others hold one or two IPv4 addresses, to which something on
// the way may translate or unwrap them.
func spellings(a netip.Addr) []netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() || !a.IsValid() {
		return []netip.Addr{a}
	}
	b := a.As16()
	all := []netip.Addr{a}
	add := func(b ...byte) { all = append(all, netip.AddrFrom4([4]byte(b))) }
	has := func(prefix ...byte) bool { return [16]byte(append(prefix, b[len(prefix):]...)) == b }
	switch {
	case a.IsUnspecified(), a.IsLoopback():
	case has(make([]byte, 12)...): // IPv4-compatible (RFC 4291, 2.5.5.1)
		add(b[12:]...)
	case has(0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0): // IPv4-translated (RFC 2765)
		add(b[12:]...)
	case has(0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0): // NAT64 (RFC 6052)
		add(b[12:]...)
	case has(0, 0x64, 0xff, 0x9b, 0, 1): // NAT64 of the local network: lengths 48 and 96
		add(b[6], b[7], b[9], b[10])
		add(b[12:]...)
	case has(0x20, 2): // 6to4 (RFC 3056)
		add(b[2:6]...)
	case has(0x20, 1, 0, 0): // Teredo (RFC 4380): the server, and the client inverted
		add(b[4:8]...)
		add(^b[12], ^b[13], ^b[14], ^b[15])
	}
	if b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe { // ISATAP (RFC 5214)
		add(b[12:]...)
	}
	return all
}
