package weir

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/hosts"
	"github.com/weir-io/weir/internal/rfc6724"
)

// Resolver turns a host name into addresses.
type Resolver interface {
	// LookupNetIP finds the addresses of host; network is "ip", "ip4" or "ip6".
	// It is called on l's goroutine and calls done there exactly once, never
	// from inside, unless cancel is called before. The order of the addresses
	// is the order of preference.
	LookupNetIP(l *Loop, network, host string, done func([]netip.Addr, error)) (cancel func())
}

// Resolver returns the resolver for the loop's connects: WithResolver's, or the
// default. Any goroutine may call it.
func (l *Loop) Resolver() Resolver { return l.resolver }

// hostsResolver knows the hosts file.
type hostsResolver struct{}

var _ Resolver = hostsResolver{}

func (hostsResolver) LookupNetIP(l *Loop, network, host string, done func([]netip.Addr, error)) func() {
	addrs, err := hosts.Lookup(network, host)
	c := l.Soon(func() { done(addrs, err) })
	return func() { c.Cancel() }
}

// splitHostPort splits an address and turns its port into a number.
func splitHostPort(netw, address string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		named, lerr := net.LookupPort(strings.Replace(netw, "sctp", "tcp", 1), p)
		if lerr != nil || p == "" {
			return "", 0, &net.AddrError{Err: "port must be a number from 0 to 65535", Addr: address}
		}
		n = uint64(named)
	}
	return host, uint16(n), nil
}

func anyIPv4(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
}

// listenSpec turns an address into a socket to open.
func listenSpec(netw, address string, c *connConfig) (*backend.Spec, error) {
	spec := &backend.Spec{Bind: true, Backlog: c.backlog, ReusePort: c.reusePort}
	n, family, ok := networkNamed(netw)
	switch {
	case !ok:
		return nil, net.UnknownNetworkError(netw)
	case n == netUnix:
		if address == "" {
			return nil, &net.AddrError{Err: "a UNIX socket needs a path or @name", Addr: address}
		}
		spec.Family = backend.Unix
		spec.Local = backend.Addr{Family: backend.Unix, Path: address}
		spec.Mode = uint32(c.mode & fs.ModePerm)
		return spec, nil
	case !n.inet():
		a, err := otherAddr(netw, address, true)
		spec.Family, spec.Local = a.Family, a
		return spec, err
	}
	host, port, err := splitHostPort(netw, address)
	if err != nil {
		return nil, err
	}
	spec.Family = backend.Inet
	spec.Options = c.socketOptions(n, false)
	spec.Device, spec.Multipath = c.device, c.multipath
	ip, err := listenIP(netw, host)
	if err != nil {
		return nil, err
	}
	spec.IPv6 = !ip.Is4()
	spec.Dual = family == "" && host == ""
	spec.Local = backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(ip, port)}
	if n == netSCTP {
		return spec, c.sctp(spec)
	}
	return spec, nil
}

func listenIP(netw, host string) (netip.Addr, error) {
	if host == "" {
		if strings.HasSuffix(netw, "4") {
			return netip.IPv4Unspecified(), nil
		}
		return netip.IPv6Unspecified(), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		if !hosts.FamilyFits(netw, ip) {
			return ip, &net.AddrError{Err: fmt.Sprintf("address is of another family than %s", netw), Addr: host}
		}
		return ip, nil
	}
	addrs, err := hosts.Lookup(netw, host)
	if err != nil {
		return netip.Addr{}, err
	}
	// A name with both families: IPv4, as package net chooses.
	for _, a := range addrs {
		if a.Is4() {
			return a, nil
		}
	}
	return addrs[0], nil
}

// order sorts a name's addresses in RFC 6724's order, as far as the backend can tell
// which address the system would send from.
func (l *Loop) order(addrs []netip.Addr) []netip.Addr {
	r, ok := l.be.(backend.Router)
	if !ok {
		return addrs
	}
	return rfc6724.Sort(addrs, r.Source)
}
