package contract

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
)

// multicasts is what TestMulticast is tried with, of one family.
var multicasts = []struct {
	network, any, group string
	near, second, far   string // addresses: two on d0, one on d1
	level, hops         int
}{
	{"udp4", "0.0.0.0:0", "232.7.7.7", "10.1.0.1", "10.1.0.2", "10.2.0.1", unix.IPPROTO_IP, unix.IP_MULTICAST_TTL},
	{"udp6", "[::]:0", "ff35::7:7", "2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::1", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS},
}

// TestMulticast: one source of a group alone, the device that is sent by, the number of
// hops, and whether this machine hears itself, for IPv4 and IPv6 (R51).
func TestMulticast(t *testing.T) {
	inNamespace(t, []string{
		"link add d0 type veth peer name p0", "link set p0 up", "link set d0 up", "link add d1 type veth peer name p1", "link set p1 up", "link set d1 up",
		"addr add 10.1.0.1/24 dev d0", "addr add 10.1.0.2/24 dev d0", "addr add 10.2.0.1/24 dev d1",
		"-6 addr add 2001:db8:1::1/64 dev d0 nodad", "-6 addr add 2001:db8:1::2/64 dev d0 nodad", "-6 addr add 2001:db8:2::1/64 dev d1 nodad",
	}, func(t *testing.T, l *weir.Loop, _ *names) {
		for _, c := range multicasts {
			group := netip.MustParseAddr(c.group)
			open := func(at string, p weir.PacketProtocol, opts ...weir.PacketOption) *weir.PacketEndpoint {
				e, err := l.ListenPacket(c.network, at, p, opts...)
				if err != nil {
					t.Fatalf("%s: %v", c.network, err)
				}
				return e
			}
			from := func(host string, opts ...weir.PacketOption) *weir.PacketEndpoint {
				return open(netip.AddrPortFrom(netip.MustParseAddr(host), 0).String(), &packets{}, opts...)
			}
			heard := &packets{}
			member := open(c.any, heard)
			to := weir.PacketAddr{IP: netip.AddrPortFrom(group, member.Local().IP.Port())}
			direct := weir.PacketAddr{IP: netip.AddrPortFrom(netip.MustParseAddr(c.near), to.IP.Port())}
			// say sends s to the group, and then to the member alone, which hears that last.
			say := func(e *weir.PacketEndpoint, s string, want ...string) {
				t.Helper()
				heard.got = nil
				for _, at := range []weir.PacketAddr{to, direct} {
					if err := e.SendTo([]byte(s+map[bool]string{true: " ends"}[at == direct]), at); err != nil {
						t.Fatalf("%s: %s: %v", c.network, s, err)
					}
				}
				turns(t, l, "the end of "+s, func() bool { return len(heard.got) > 0 && string(heard.got[len(heard.got)-1]) == s+" ends" })
				got := heard.got[:len(heard.got)-1]
				if len(got) != len(want) || len(want) > 0 && string(got[0]) != want[0] {
					t.Errorf("%s: %s: heard %q, want %q", c.network, s, got, want)
				}
			}

			near, second := netip.MustParseAddr(c.near), netip.MustParseAddr(c.second)
			one, two := from(c.near, weir.WithMulticastDevice("d0")), from(c.second, weir.WithMulticastDevice("d0"))
			if err := member.JoinSource(group, near, "d0"); err != nil {
				t.Fatalf("%s: %v", c.network, err)
			}
			say(one, "source", "source")
			say(two, "another source")
			if err := member.JoinSource(group, second, "d0"); err != nil {
				t.Fatal(err)
			}
			say(two, "a second source", "a second source")
			if err := member.JoinSource(group, second, "d0"); !errors.Is(err, syscall.EADDRNOTAVAIL) {
				t.Errorf("%s: the same source again: %v", c.network, err)
			}
			if err := member.LeaveSource(group, near, "d0"); err != nil {
				t.Fatal(err)
			}
			say(one, "a source that was left")
			say(two, "the other source", "the other source")
			if err := member.LeaveSource(group, second, "d0"); err != nil {
				t.Fatal(err)
			}
			for what, source := range map[string]netip.Addr{"nothing": {}, "another family": netip.MustParseAddr(map[bool]string{true: "::1", false: "127.0.0.1"}[group.Is4()]), "a group": group} {
				if err := member.JoinSource(group, source, "d0"); err == nil {
					t.Errorf("%s: %s is a source", c.network, what)
				}
			}

			if err := member.JoinGroup(group, "d0"); err != nil {
				t.Fatal(err)
			}
			say(one, "all", "all")
			say(from(c.far, weir.WithMulticastDevice("d1")), "by another device")
			say(from(c.near, weir.WithMulticastDevice("d0"), weir.WithMulticastLoop(false)), "not to this machine")
			say(from(c.near, weir.WithMulticastDevice("d0"), weir.WithMulticastLoop(true), weir.WithMulticastHops(0)), "only to this machine", "only to this machine")
			far := from(c.near, weir.WithMulticastDevice("d0"), weir.WithMulticastHops(9))
			say(far, "by nine hops", "by nine hops")
			var hops int
			var errno error
			if err := far.Control(func(fd uintptr) { hops, errno = unix.GetsockoptInt(int(fd), c.level, c.hops) }); err != nil || errno != nil || hops != 9 {
				t.Errorf("%s: %d hops, %v, %v", c.network, hops, err, errno)
			}
			if _, err := l.ListenPacket(c.network, c.any, &packets{}, weir.WithMulticastDevice("none")); !errors.Is(err, syscall.ENODEV) {
				t.Errorf("%s: by a device that there is not: %v", c.network, err)
			}
			if _, err := l.ListenPacket(c.network, c.any, &packets{}, weir.WithMulticastHops(256)); err == nil {
				t.Errorf("%s: 256 hops", c.network)
			}
		}
	})
}
