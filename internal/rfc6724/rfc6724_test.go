package rfc6724

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// TestSort: the examples of RFC 6724, 10.2, and some for the order in which names are
// tried (R46).
func TestSort(t *testing.T) {
	for _, c := range []struct {
		name  string
		in    string // destination=source, or the destination alone if it is unreachable
		order string
	}{
		{"matching scope", "2001:db8:1::1=2001:db8:1::2 198.51.100.121=169.254.13.78", "2001:db8:1::1 198.51.100.121"},
		{"matching scope, the other way", "2001:db8:1::1=fe80::1 198.51.100.121=198.51.100.117", "198.51.100.121 2001:db8:1::1"},
		{"precedence", "10.1.2.3=10.1.2.4 2001:db8:1::1=2001:db8:1::2", "2001:db8:1::1 10.1.2.3"},
		{"smaller scope", "2001:db8:1::1=2001:db8:1::2 fe80::1=fe80::2", "fe80::1 2001:db8:1::1"},
		{"longest prefix", "2001:db8:3ffe::1=2001:db8:1::2 2001:db8:1::1=2001:db8:1::2", "2001:db8:1::1 2001:db8:3ffe::1"},
		{"matching label", "2002:c633:6401::1=2001:db8:1::2 2001:db8:1::1=2001:db8:1::2", "2001:db8:1::1 2002:c633:6401::1"},
		{"higher precedence", "2002:c633:6401::1=2002:c633:6401::2 2001:db8:1::1=2002:c633:6401::2", "2002:c633:6401::1 2001:db8:1::1"},
		{"unusable last", "2001:db8::1 2001:db8::2 192.0.2.1=192.0.2.7", "192.0.2.1 2001:db8::1 2001:db8::2"},
		{"IPv4 stays as it came", "192.0.2.9=192.0.2.1 192.0.2.2=192.0.2.1 198.51.100.1=192.0.2.1", "192.0.2.9 192.0.2.2 198.51.100.1"},
		{"unique local behind IPv4", "fd00::1=2001:db8::2 192.0.2.1=192.0.2.2", "192.0.2.1 fd00::1"},
		{"loopback", "127.0.0.1=127.0.0.1 ::1=::1", "::1 127.0.0.1"},
		{"mapped", "::ffff:192.0.2.1=192.0.2.2 2001:db8::1=2001:db8::2", "2001:db8::1 192.0.2.1"},
		{"one", "192.0.2.1", "192.0.2.1"},
	} {
		sources := map[netip.Addr]netip.Addr{}
		var in []netip.Addr
		for _, f := range strings.Fields(c.in) {
			to, from, usable := strings.Cut(f, "=")
			a := netip.MustParseAddr(to)
			in = append(in, a)
			if usable {
				sources[a.Unmap()] = netip.MustParseAddr(from)
			}
		}
		out := Sort(in, func(a netip.Addr) (netip.Addr, bool) { s, ok := sources[a]; return s, ok })
		if got := strings.Trim(fmt.Sprint(out), "[]"); got != c.order {
			t.Errorf("%s: %s, want %s", c.name, got, c.order)
		}
	}
}
