// Package hosts reads the hosts file (hosts(5)) of the system.
package hosts

import (
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Most is how many bytes of a hosts file are read.
const Most = 16 << 20

// Each calls f for each name of each line that text has, in order, with the line's
// address. Lines that it does not understand are ignored.
func Each(text string, f func(a netip.Addr, name string)) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		a, err := netip.ParseAddr(words[0])
		if err != nil {
			continue
		}
		for _, name := range words[1:] {
			f(a, name)
		}
	}
}

// Lookup finds the addresses that the system's file has for host, in the file's order;
// network ends with the wanted family, see FamilyFits. Loopback names have the loopback
// addresses, even if the file leaves them out (RFC 6761, 6.3). A missing file counts as
// empty.
func Lookup(network, host string) ([]netip.Addr, error) {
	text, err := read()
	if err != nil {
		return nil, &net.DNSError{Err: err.Error(), Name: host}
	}
	var addrs []netip.Addr
	want := strings.TrimSuffix(host, ".")
	Each(text, func(a netip.Addr, name string) {
		if FamilyFits(network, a) && strings.EqualFold(strings.TrimSuffix(name, "."), want) && !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	})
	if lower := strings.ToLower(want); lower == "localhost" || strings.HasSuffix(lower, ".localhost") {
		addrs = WithLoopback(network, addrs)
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host in the hosts file, and the loop has no resolver (WithResolver)", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// WithLoopback appends the loopback address of each family that network asks for and
// addrs has none of (RFC 6761, 6.3).
func WithLoopback(network string, addrs []netip.Addr) []netip.Addr {
	for _, a := range []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})} {
		if FamilyFits(network, a) && !slices.ContainsFunc(addrs, func(b netip.Addr) bool { return b.Unmap().Is4() == a.Is4() }) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// read returns the content of the system's file, up to Most bytes.
func read() (string, error) {
	f, err := os.Open(Path)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, Most))
	return string(text), err
}

// FamilyFits reports whether a is of the family that network asks for: IPv4 if it ends
// with 4, IPv6 if it ends with 6, else either.
func FamilyFits(network string, a netip.Addr) bool {
	switch network[len(network)-1] {
	case '4':
		return a.Unmap().Is4()
	case '6':
		return a.Is6() && !a.Is4In6()
	}
	return true
}
