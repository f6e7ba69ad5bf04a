package sys

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// TestPathOptions: the options that decide how packets travel are set before a socket
// of either family listens or connects.
func TestPathOptions(t *testing.T) {
	for _, c := range []struct {
		name string
		spec backend.Spec
	}{
		{"dial 4", backend.Spec{Family: backend.Inet}},
		{"dial 6", backend.Spec{Family: backend.Inet, IPv6: true}},
		{"listen 4", backend.Spec{Family: backend.Inet, Bind: true, Backlog: 5, Local: backend.Addr{Family: backend.Inet, IP: netip.MustParseAddrPort("127.0.0.1:0")}}},
		{"listen both", backend.Spec{Family: backend.Inet, IPv6: true, Dual: true, Bind: true, Backlog: 5, Local: backend.Addr{Family: backend.Inet, IP: netip.MustParseAddrPort("[::]:0")}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := map[backend.Option]int{backend.TrafficClass: 46 << 2, backend.FastOpen: 1}
			if unix.Geteuid() == 0 {
				want[backend.Mark] = 77
			}
			spec := c.spec
			spec.Device, spec.Multipath = "lo", true
			for _, o := range []backend.Option{backend.TrafficClass, backend.FastOpen, backend.Mark} {
				if v, ok := want[o]; ok {
					spec.Options = append(spec.Options, backend.OptionValue{Option: o, Value: v})
				}
			}
			fd, _, err := Open(&spec)
			if errors.Is(err, unix.EOPNOTSUPP) && spec.Multipath {
				spec.Multipath = false // not all of them are for Multipath TCP
				fd, _, err = Open(&spec)
			}
			if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
				t.Skip("no IPv6 here")
			}
			if err != nil {
				t.Fatal(err)
			}
			defer Close(fd)
			for o, v := range want {
				if got, err := GetOption(fd, o); err != nil || got != v {
					t.Errorf("option %d: %d, %v; want %d", o, got, err, v)
				}
			}
			if dev, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err != nil || dev != "lo" {
				t.Errorf("device %q, %v", dev, err)
			}
			if spec.IPv6 && spec.Dual {
				if v, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS); err != nil || v != 46<<2 {
					t.Errorf("IPv4 on the socket of both: %d, %v", v, err)
				}
			}
		})
	}
}

// TestNoSuchDevice: the name of a device that does not exist is an error before anything is
// bound.
func TestNoSuchDevice(t *testing.T) {
	if fd, _, err := Open(&backend.Spec{Family: backend.Inet, Device: "nosuch0"}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("%d, %v", fd, err)
	}
}
