package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-io/weir/internal/hosts"
)

// This file holds what is known without a server.

// localAddrs returns the addresses of a literal, of localhost, or of a name in
// the hosts file, which is authoritative; known is false for any other name.
func (c *client) localAddrs(network, host string) (addrs []netip.Addr, known bool) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(host, ".")); err == nil {
		if hosts.FamilyFits(network, a) {
			addrs = append(addrs, a)
		}
		return addrs, true
	}
	addrs, known = c.hosts.lookup(network, host)
	if !isLocalhost(host) {
		return addrs, known
	}
	return hosts.WithLoopback(network, addrs), true
}

// localNames returns the names of an address in the hosts file, or of loopback.
func (c *client) localNames(a netip.Addr) []string {
	if c.hosts != nil && len(c.hosts.names[a]) > 0 {
		return slices.Clone(c.hosts.names[a])
	}
	if a.IsLoopback() {
		return []string{"localhost."}
	}
	return nil
}

// local returns the records that answer a question without a server. A name in
// the hosts file may have records of types other than addresses elsewhere; a
// literal and localhost have none.
func (c *client) local(name string, t Type) (all []Record, known bool) {
	owner := lower(absolute(name))
	switch t {
	case A, AAAA:
		network := "ip4"
		if t == AAAA {
			network = "ip6"
		}
		addrs, known := c.localAddrs(network, name)
		for _, a := range addrs {
			all = append(all, Record{Name: owner, Type: t, Addr: a.Unmap()})
		}
		return all, known
	case PTR:
		a, ok := reversed(owner)
		if !ok {
			return nil, false
		}
		for _, n := range c.localNames(a) {
			all = append(all, Record{Name: owner, Type: t, Target: lower(n)})
		}
		return all, len(all) > 0
	default: // types that no hosts file has
	}
	_, err := netip.ParseAddr(strings.TrimSuffix(name, "."))
	return nil, err == nil || isLocalhost(name)
}

// reversed returns the address that a name made by ReverseName stands for.
func reversed(name string) (a netip.Addr, ok bool) {
	if s, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(s, ".")
		slices.Reverse(parts)
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil && a.Is4()
	}
	s, ok := strings.CutSuffix(name, ".ip6.arpa.")
	digits := strings.Split(s, ".")
	var b [16]byte
	if !ok || len(digits) != 2*len(b) {
		return a, false
	}
	slices.Reverse(digits)
	for i, d := range digits {
		v, err := strconv.ParseUint(d, 16, 4)
		if err != nil || len(d) != 1 {
			return a, false
		}
		b[i/2] |= byte(v) << (4 * (1 - i%2))
	}
	return netip.AddrFrom16(b), true
}
