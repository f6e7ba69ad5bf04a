package dns

import (
	"io"
	"net/netip"
	"strings"
)

// Hosts is what a hosts file says (hosts(5)): addresses by name, and names by
// address.
type Hosts struct {
	addrs map[string][]netip.Addr
	names map[netip.Addr][]string
}

const hostsMost = 16 << 20 // bytes of the file that are read

// ParseHosts reads a hosts file. Lines that it does not understand are ignored.
func ParseHosts(r io.Reader) (*Hosts, error) {
	text, err := io.ReadAll(io.LimitReader(r, hostsMost))
	if err != nil {
		return nil, err
	}
	h := &Hosts{addrs: map[string][]netip.Addr{}, names: map[netip.Addr][]string{}}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		for _, name := range f[1:] {
			h.add(name, a)
		}
	}
	return h, nil
}

func (h *Hosts) add(name string, a netip.Addr) {
	key := lower(absolute(name))
	h.addrs[key] = append(h.addrs[key], a)
	a = a.Unmap().WithZone("")
	h.names[a] = append(h.names[a], absolute(name))
}

// lookup returns the addresses of a name; known says that it is in the file, be
// it with another family only. The file's word is final.
func (h *Hosts) lookup(network, name string) (addrs []netip.Addr, known bool) {
	if h == nil {
		return nil, false
	}
	all, known := h.addrs[lower(absolute(name))]
	for _, a := range all {
		if fits(network, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, known
}

// fits reports whether an address is of the family that "ip", "ip4" or "ip6"
// asks for.
func fits(network string, a netip.Addr) bool {
	switch network[len(network)-1] {
	case '4':
		return a.Unmap().Is4()
	case '6':
		return a.Is6() && !a.Is4In6()
	}
	return true
}
