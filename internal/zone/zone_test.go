package zone_test

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/weir-io/weir/internal/zone"
)

// TestNamed: numbers become names, and only addresses that need a zone keep one.
func TestNamed(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil || len(all) == 0 {
		t.Skip("no network interface")
	}
	name, number := all[0].Name, strconv.Itoa(all[0].Index)
	for from, want := range map[string]string{
		"fe80::1%" + number:       "fe80::1%" + name,
		"fe80::1%" + name:         "fe80::1%" + name,
		"fe80::1":                 "fe80::1",
		"ff02::1%" + number:       "ff02::1%" + name,
		"ff05::1%" + number:       "ff05::1",
		"::1%" + number:           "::1",
		"2001:db8::1%" + name:     "2001:db8::1",
		"fe80::1%2147483647":      "fe80::1%2147483647",
		"fe80::1%0":               "fe80::1%0",
		"fe80::1%nothing has it ": "fe80::1%nothing has it ",
		"192.0.2.1":               "192.0.2.1",
	} {
		if got := zone.Named(netip.MustParseAddr(from)); got.String() != want {
			t.Errorf("%s became %s, not %s", from, got, want)
		}
	}
	at := netip.MustParseAddrPort("[fe80::1%" + number + "]:7")
	if got := zone.NamedPort(at); got != netip.AddrPortFrom(zone.Named(at.Addr()), 7) {
		t.Error(got)
	}
}
