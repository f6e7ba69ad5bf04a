package proxy_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/weirtest"
)

// withTLV returns a header of version 2 with further values.
func withTLV(values string) string {
	n := 12 + len(values)
	return v2 + "\x21\x11" + string([]byte{byte(n >> 8), byte(n)}) + "\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb" + values
}

// sum returns the checksum of a header whose part from the signature to the
// checksum is given.
func sum(header string) string {
	n := crc32.Checksum([]byte(v2+header+"\x00\x00\x00\x00"), crc32.MakeTable(crc32.Castagnoli))
	return string(binary.BigEndian.AppendUint32(nil, n))
}

const v2 = "\r\n\r\n\x00\r\nQUIT\n"

// TestHeaderIn: behaviour 90 and the list for PROXY in docs/promises.md.
// However a header is cut, the transport has its addresses, and the protocol
// gets what follows it; everything else is refused.
func TestHeaderIn(t *testing.T) {
	rest := "rest\r\n"
	for _, c := range []struct {
		name, header, src, dst string
	}{
		{"v1", "PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n", "192.0.2.1:1234", "198.51.100.2:443"},
		{"v1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", "[2001:db8::1]:1", "[2001:db8::2]:65535"},
		{"v1, the longest", "PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n", "wire", "wire"},
		{"v1, unknown", "PROXY UNKNOWN\r\n", "wire", "wire"},
		{"v2", v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb", "192.0.2.1:1234", "198.51.100.2:443"},
		{"v2, UNIX", v2 + "\x21\x31\x00\xd8/run/a" + strings.Repeat("\x00", 102) + "/run/b" + strings.Repeat("\x00", 102), "wire", "wire"},
		{"v2, UNIX, a path like an address", v2 + "\x21\x31\x00\xd8192.0.2.1:1" + strings.Repeat("\x00", 97) + strings.Repeat("\x00", 108), "wire", "wire"},
		{"v2, UNIX datagrams", v2 + "\x21\x32\x00\xd8" + strings.Repeat("\x00", 216), "wire", "wire"},
		{"v2, UDP", v2 + "\x21\x12\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb", "192.0.2.1:1234", "198.51.100.2:443"},
		{"v2, UDP over IPv6", v2 + "\x21\x22\x00\x24\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x02\x04\xd2\x01\xbb", "[2001:db8::1]:1234", "[2001:db8::2]:443"},
		{"v2, more", v2 + "\x21\x11\x00\x11\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb\x02\x00\x02ab", "192.0.2.1:1234", "198.51.100.2:443"},
		{"v2, a checksum", v2 + "\x21\x11\x00\x13\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb\x03\x00\x04" + sum("\x21\x11\x00\x13\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb\x03\x00\x04"), "192.0.2.1:1234", "198.51.100.2:443"},
		{"v2, TLS", withTLV("\x20\x00\x0c\x05\x00\x00\x00\x00\x22\x00\x04name"), "192.0.2.1:1234", "198.51.100.2:443"},
		{"v2, padding twice", withTLV("\x04\x00\x01x\x04\x00\x00"), "192.0.2.1:1234", "198.51.100.2:443"},
		{"v2, another's own twice", withTLV("\xe0\x00\x01x\xe0\x00\x01y"), "192.0.2.1:1234", "198.51.100.2:443"},
		{"v2, a wrong checksum", withTLV("\x03\x00\x04abcd"), "", ""},
		{"v2, a checksum too short", withTLV("\x03\x00\x02ab"), "", ""},
		{"v2, a value cut off", withTLV("\x02\x00\x05ab"), "", ""},
		{"v2, half a value's head", withTLV("\x02\x00"), "", ""},
		{"v2, two authorities", withTLV("\x02\x00\x01a\x02\x00\x01b"), "", ""},
		{"v2, two names in TLS", withTLV("\x20\x00\x0d\x05\x00\x00\x00\x00\x22\x00\x01a\x22\x00\x01b"), "", ""},
		{"v2, a value cut off in TLS", withTLV("\x20\x00\x09\x05\x00\x00\x00\x00\x22\x00\x04a"), "", ""},
		{"v2, TLS too short", withTLV("\x20\x00\x02\x05\x00"), "", ""},
		{"v2, LOCAL", v2 + "\x20\x00\x00\x00", "wire", "wire"},
		{"v2, LOCAL with addresses", v2 + "\x20\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\x04\xd2\x01\xbb", "wire", "wire"},
		{"v2, UNSPEC", v2 + "\x21\x00\x00\x03abc", "wire", "wire"},
		{"v1, a line too long", "PROXY UNKNOWN " + strings.Repeat("f", 92) + "\r\n", "", ""},
		{"v1, a port too large", "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n", "", ""},
		{"v1, leading zeros", "PROXY TCP4 192.0.2.1 198.51.100.2 0443 443\r\n", "", ""},
		{"v1, another family", "PROXY TCP4 ::1 ::1 1 1\r\n", "", ""},
		{"v1, two spaces", "PROXY  TCP4 192.0.2.1 198.51.100.2 1 1\r\n", "", ""},
		{"v1, a scope", "PROXY TCP6 fe80::1%a ::1 1 1\r\n", "", ""},
		{"v2, too long", v2 + "\x21\x11\x10\x01", "", ""},
		{"v2, too short", v2 + "\x21\x21\x00\x0c" + strings.Repeat("\x00", 12), "", ""},
		{"v2, another version", v2 + "\x31\x11\x00\x0c" + strings.Repeat("\x00", 12), "", ""},
		{"v2, another command", v2 + "\x22\x11\x00\x0c" + strings.Repeat("\x00", 12), "", ""},
		{"none", "GET / HTTP/1.1\r\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, chop := range []weirtest.Chop{weirtest.Whole(), weirtest.ByteByByte(), weirtest.Random(1)} {
				rec := weirtest.NewRecorder(t)
				wire := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:9"))
				rec.SetAddrs(wire, wire)
				e := &layertest.Ear{}
				rec.Connect(proxy.HeaderIn(nil, -1)(layer.Above{Make: func(weir.Transport) weir.Protocol { return e }}).Make(rec))
				weirtest.Feed(rec, []byte(c.header+rest), chop)
				if c.src == "" {
					if lost, _ := rec.Lost(); e.Made != 0 || !lost {
						t.Fatalf("made %d, lost %v", e.Made, lost)
					}
					continue
				}
				src, dst := c.src, c.dst
				if src == "wire" {
					src, dst = wire.String(), wire.String()
				}
				if e.Made != 1 || e.Tr.RemoteAddr().String() != src || e.Tr.LocalAddr().String() != dst || string(e.Got) != rest {
					t.Fatalf("made %d, from %v to %v, got %q", e.Made, e.Tr.RemoteAddr(), e.Tr.LocalAddr(), e.Got)
				}
				for _, a := range []net.Addr{e.Tr.RemoteAddr(), e.Tr.LocalAddr()} {
					if _, ok := a.(*net.TCPAddr); !ok {
						t.Fatalf("%v is a %T", a, a)
					}
				}
				h := proxy.HeaderOf(e.Tr)
				if u, ok := h.Source.(*net.UnixAddr); c.name == "v2, UNIX" && (!ok || u.Name != "/run/a") {
					t.Fatalf("the header says %v", h.Source)
				}
				if v, ok := h.TLV(2); ok != (c.name == "v2, more") || ok && string(v) != "ab" {
					t.Fatalf("value 2 is %q, %v", v, ok)
				}
			}
		})
	}
}

// TestHeaderInTrust: a peer that is not trusted is refused before a byte is
// read, header or not, and one that is trusted must send a header in time.
func TestHeaderInTrust(t *testing.T) {
	client := netip.MustParseAddr("10.9.9.9")
	for _, c := range []struct {
		name    string
		trusted []netip.Prefix
		silent  bool
		want    error
	}{
		{"trusted", []netip.Prefix{netip.PrefixFrom(client, 24)}, false, nil},
		{"not trusted", []netip.Prefix{netip.MustParsePrefix("10.9.8.0/24")}, false, proxy.ErrNotAllowed},
		{"by default", nil, false, proxy.ErrNotAllowed},
		{"silent", []netip.Prefix{netip.PrefixFrom(client, 32)}, true, layer.ErrTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			sim := weirtest.NewSim(t, 3)
			here, there := sim.Host("here"), sim.Host("there", client)
			e, p := &layertest.Ear{}, &layertest.Ear{}
			var failed error
			ln, err := here.Loop().Listen("tcp", ":7000", layer.ServerFunc(func(weir.Transport) weir.Protocol { return e },
				func(_ weir.Transport, err *weir.AttemptError) { failed = err }, proxy.HeaderIn(c.trusted, time.Second)))
			if err != nil {
				t.Fatal(err)
			}
			out := proxy.HeaderOut(proxy.HeaderV2, nil, nil)
			if c.silent {
				out = layertest.Plain
			}
			there.Loop().Connect("tcp", "here:7000", layer.Client(p, out))
			sim.Until("an outcome", func() bool { return failed != nil || e.Made > 0 })
			if !errors.Is(failed, c.want) || c.want == nil && failed != nil || (e.Made > 0) != (c.want == nil) {
				t.Errorf("made %d, failed %v", e.Made, failed)
			}
			_ = ln.Close()
		})
	}
}

// TestAccess: rules apply to an address however it is written
// (docs/promises.md, SOCKS and CONNECT).
func TestAccess(t *testing.T) {
	nets := func(s ...string) (all []netip.Prefix) {
		for _, n := range s {
			all = append(all, netip.MustParsePrefix(n))
		}
		return all
	}
	for _, c := range []struct {
		allow, deny []netip.Prefix
		addr        string
		ok          bool
	}{
		{nil, nil, "192.0.2.1", true},
		{nil, nil, "0.0.0.0", false},
		{nil, nil, "0.1.2.3", false},
		{nil, nil, "::", false},
		{nil, nil, "169.254.169.254", false},
		{nil, nil, "::ffff:169.254.169.254", false},
		{nil, nil, "64:ff9b::a9fe:a9fe", false},
		{nil, nil, "fe80::1%eth0", false},
		{nil, nil, "224.0.0.1", false},
		{nil, nil, "255.255.255.255", false},
		{nil, nil, "ff02::1", false},
		{nets("0.0.0.0/0"), nil, "169.254.169.254", false},
		{nets("169.254.0.0/16"), nil, "169.254.169.254", true},
		{nil, nets("127.0.0.0/8"), "127.0.0.1", false},
		{nil, nets("127.0.0.0/8"), "::ffff:127.0.0.1", false},
		{nil, nets("::ffff:127.0.0.0/104"), "127.0.0.1", false},
		{nil, nets("127.0.0.0/8"), "64:ff9b::7f00:1", false},
		{nil, nets("127.0.0.0/8"), "2002:7f00:1::", false},
		{nets("0.0.0.0/8"), nets("127.0.0.0/8"), "0.0.0.0", false},
		{nets("10.0.0.0/8"), nil, "10.1.2.3", true},
		{nets("10.0.0.0/8"), nil, "11.1.2.3", false},
		{nets("10.0.0.0/8"), nets("10.1.0.0/16"), "10.1.2.3", false},
		{nets("10.0.0.0/8"), nil, "::1", false},

		// Private networks and loopback are refused unless they are named.
		{nil, nil, "127.0.0.1", false},
		{nil, nil, "::1", false},
		{nil, nil, "10.1.2.3", false},
		{nil, nil, "172.31.255.255", false},
		{nil, nil, "172.32.0.1", true},
		{nil, nil, "::ffff:192.168.1.1", false},
		{nil, nil, "100.64.0.1", false},
		{nil, nil, "fd12::1", false},
		{nil, nil, "fec0::1", false},
		{nets("0.0.0.0/0", "::/0"), nil, "10.1.2.3", false},
		{nets("0.0.0.0/0", "::/0"), nil, "fd12::1", false},
		{nets("8.0.0.0/5"), nil, "10.1.2.3", false},
		{nets("10.1.0.0/16"), nil, "10.1.2.3", true},
		{nets("127.0.0.1/32"), nil, "127.0.0.1", true},
		{nets("fc00::/7"), nil, "fd12::1", true},

		// Metadata addresses, however they are written.
		{nil, nil, "100.100.100.200", false},
		{nets("100.64.0.0/10"), nil, "100.100.100.200", false},
		{nets("100.100.100.200/32"), nil, "100.100.100.200", true},
		{nil, nil, "192.0.0.192", false},
		{nil, nil, "fd00:ec2::254", false},
		{nets("fc00::/7"), nil, "fd00:ec2::254", false},
		{nets("fd00:ec2::254/128"), nil, "fd00:ec2::254", true},
		{nil, nil, "64:ff9b:1::1", false},
		{nil, nil, "64:ff9b:1:a9fe:a9:fe00::", false},
		{nets("64:ff9b:1::/48", "169.254.0.0/16", "0.0.0.0/8"), nets("169.254.169.254/32"), "64:ff9b:1:a9fe:a9:fe00:1:0", false},
		{nil, nil, "64:ff9b::6464:64c8", false},
		{nil, nil, "2002:a9fe:a9fe::1", false},
		{nil, nil, "2002:a00:1::1", false},
		{nil, nil, "2001:0:a9fe:a9fe::1", false},
		{nil, nil, "2001:0:c000:201:0:0:5601:5601", false}, // Teredo of 169.254.169.254, inverted
		{nil, nil, "2001:0:c000:201:0:0:3fff:fdfe", true},
		{nil, nil, "::169.254.169.254", false},
		{nil, nil, "::ffff:0:a9fe:a9fe", false},
		{nil, nil, "2001:db8::5efe:a00:1", false},
		{nil, nil, "2001:db8::200:5efe:7f00:1", false},
		{nil, nil, "2001:db8::1", true},
	} {
		r := &proxy.Access{Allow: c.allow, Deny: c.deny}
		err := r.Check(netip.MustParseAddr(c.addr))
		var why *proxy.AccessError
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, proxy.ErrNotAllowed) || !errors.As(err, &why)) {
			t.Errorf("allow %v, deny %v: %s: %v", c.allow, c.deny, c.addr, err)
			continue
		}
		if err == nil {
			continue
		}
		want := proxy.Special
		switch {
		case why.Problem == proxy.Private:
			want = proxy.Private
			free := &proxy.Access{Allow: c.allow, Deny: c.deny, Private: true}
			if err := free.Check(netip.MustParseAddr(c.addr)); err != nil {
				t.Errorf("with Private: %s: %v", c.addr, err)
			}
		case len(c.deny) > 0 && why.Network.IsValid() && why.Network == c.deny[0]:
			want = proxy.Denied
		case len(c.allow) > 0 && !why.Network.IsValid():
			want = proxy.NotListed
		}
		if why.Problem != want || !why.Addr.IsValid() || why.Addr.Zone() != "" {
			t.Errorf("allow %v, deny %v: %s: problem %d, %v", c.allow, c.deny, c.addr, why.Problem, err)
		}
	}
}

// TestAccessOwn: the addresses that the process itself listens on are refused,
// and so is each address that leads to them, even if it is named.
func TestAccessOwn(t *testing.T) {
	own := func() []net.Addr {
		return []net.Addr{
			&net.TCPAddr{IP: net.IPv6unspecified, Port: 1080},
			&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1081},
			&net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1082},
			&net.UnixAddr{Net: "unix", Name: "127.0.0.1:1083"},
		}
	}
	everywhere := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("::/128"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("0.0.0.0/0")}
	r := &proxy.Access{Allow: everywhere, Private: true, Own: own}
	here, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	type check struct {
		addr string
		own  bool
	}
	checks := []check{
		{"127.0.0.1:1080", true},
		{"127.9.9.9:1080", true},
		{"[::1]:1080", true},
		{"[::ffff:127.0.0.1]:1080", true},
		{"0.0.0.0:1080", true},
		{"[::]:1080", true},
		{"[64:ff9b::7f00:1]:1080", true},
		{"203.0.113.9:1080", false},
		{"127.0.0.1:1079", false},
		{"127.0.0.1:1081", true},
		{"[::ffff:127.0.0.1]:1081", true},
		{"0.0.0.0:1081", true},
		{"[::]:1081", true},
		{"127.0.0.2:1081", false},
		{"192.0.2.7:1082", true},
		{"[2002:c000:207::1]:1082", true},
		{"127.0.0.1:1082", false},
		{"127.0.0.1:1083", false},
	}
	for _, a := range here {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			checks = append(checks, check{net.JoinHostPort(n.IP.String(), "1080"), true})
		}
	}
	for _, c := range checks {
		err := r.CheckAddrPort(netip.MustParseAddrPort(c.addr))
		var why *proxy.AccessError
		if isOwn := errors.As(err, &why) && why.Problem == proxy.Own && why.Listener != nil; isOwn != c.own || !c.own && err != nil {
			t.Errorf("%s: %v", c.addr, err)
		}
	}
}

// TestSteady: once a proxy's layer has stepped aside, a message through it
// costs no allocation (R6), and what is above can let the kernel move its bytes
// (R37).
func TestSteady(t *testing.T) {
	server := []layer.Layer{proxy.HeaderIn([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, 0), proxy.SOCKSServer(proxy.Version5), proxy.ConnectServer()}
	client := []layer.Layer{proxy.HeaderOut(proxy.HeaderV2, nil, nil), proxy.SOCKS5("a.example:1"), proxy.Connect("b.example:2")}
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // package net allocates
		}
		if n := layertest.Allocs(t, name, server, client); n != 0 {
			t.Errorf("%s: %v allocations a message", name, n)
		}
	}
	sim := weirtest.NewSim(t, 1)
	here, there := sim.Host("here"), sim.Host("there")
	e := &layertest.Ear{}
	if _, err := here.Loop().Listen("tcp", ":7000", layer.Server(func(weir.Transport) weir.Protocol { return e }, server...)); err != nil {
		t.Fatal(err)
	}
	there.Loop().Connect("tcp", "here:7000", layer.Client(&layertest.Ear{}, client...))
	sim.Until("the connection", func() bool { return e.Made > 0 })
	if _, ok := e.Tr.(weir.Splicer); !ok {
		t.Error("what stands above three proxies cannot be spliced")
	}
}
