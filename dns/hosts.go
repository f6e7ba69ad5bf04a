package dns

import (
	"io"
	"net/netip"

	"github.com/weir-io/weir/internal/hosts"
)

// Hosts is the content of a hosts file (hosts(5)): addresses by name, and names
// by address.
type Hosts struct {
	addrs map[string][]netip.Addr
	names map[netip.Addr][]string
}

// ParseHosts reads a hosts file, up to 16 MiB of it. Lines that it does not
// understand are ignored.
func ParseHosts(r io.Reader) (*Hosts, error) {
	text, err := io.ReadAll(io.LimitReader(r, hosts.Most))
	if err != nil {
		return nil, err
	}
	h := &Hosts{addrs: map[string][]netip.Addr{}, names: map[netip.Addr][]string{}}
	hosts.Each(string(text), func(a netip.Addr, name string) { h.add(name, a) })
	return h, nil
}

func (h *Hosts) add(name string, a netip.Addr) {
	key := lower(absolute(name))
	h.addrs[key] = append(h.addrs[key], a)
	a = a.Unmap().WithZone("")
	h.names[a] = append(h.names[a], absolute(name))
}

// lookup returns the addresses of a name; known says that the name is in the
// file, even if only with another family. What the file says is final.
func (h *Hosts) lookup(network, name string) (addrs []netip.Addr, known bool) {
	if h == nil {
		return nil, false
	}
	all, known := h.addrs[lower(absolute(name))]
	for _, a := range all {
		if hosts.FamilyFits(network, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, known
}
