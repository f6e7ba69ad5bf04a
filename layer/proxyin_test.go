package layer_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

const v2 = "\r\n\r\n\x00\r\nQUIT\n"

// TestProxyIn: behaviour 90 and RELIABILITY.md's list for PROXY. However a header
// is cut its addresses are the transport's, and what follows it is the
// protocol's; everything else is refused.
func TestProxyIn(t *testing.T) {
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
				e := &ear{}
				rec.Connect(layer.ProxyIn(nil, -1)(layer.Above{Make: func(weir.Transport) weir.Protocol { return e }}).Make(rec))
				weirtest.Feed(rec, []byte(c.header+rest), chop)
				if c.src == "" {
					if lost, _ := rec.Lost(); e.made != 0 || !lost {
						t.Fatalf("made %d, lost %v", e.made, lost)
					}
					continue
				}
				src, dst := c.src, c.dst
				if src == "wire" {
					src, dst = wire.String(), wire.String()
				}
				if e.made != 1 || e.tr.RemoteAddr().String() != src || e.tr.LocalAddr().String() != dst || string(e.got) != rest {
					t.Fatalf("made %d, from %v to %v, got %q", e.made, e.tr.RemoteAddr(), e.tr.LocalAddr(), e.got)
				}
				for _, a := range []net.Addr{e.tr.RemoteAddr(), e.tr.LocalAddr()} {
					if _, ok := a.(*net.TCPAddr); !ok {
						t.Fatalf("%v is a %T", a, a)
					}
				}
				h := layer.ProxyHeaderOf(e.tr)
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

// TestProxyInTrust: who is not trusted is refused before a byte is read, header
// or not, and who is must send one in time.
func TestProxyInTrust(t *testing.T) {
	client := netip.MustParseAddr("10.9.9.9")
	for _, c := range []struct {
		name    string
		trusted []netip.Prefix
		silent  bool
		want    error
	}{
		{"trusted", []netip.Prefix{netip.PrefixFrom(client, 24)}, false, nil},
		{"not trusted", []netip.Prefix{netip.MustParsePrefix("10.9.8.0/24")}, false, layer.ErrNotAllowed},
		{"by default", nil, false, layer.ErrNotAllowed},
		{"silent", []netip.Prefix{netip.PrefixFrom(client, 32)}, true, layer.ErrTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			sim := weirtest.NewSim(t, 3)
			here, there := sim.Host("here"), sim.Host("there", client)
			e, p := &ear{}, &ear{}
			var failed error
			ln, err := here.Loop().Listen("tcp", ":7000", layer.ServerFunc(func(weir.Transport) weir.Protocol { return e },
				func(_ weir.Transport, err *weir.AttemptError) { failed = err }, layer.ProxyIn(c.trusted, time.Second)))
			if err != nil {
				t.Fatal(err)
			}
			out := layer.ProxyOut(layer.ProxyV2, nil, nil)
			if c.silent {
				out = plain
			}
			there.Loop().Connect("tcp", "here:7000", layer.Client(p, out))
			sim.Until("an outcome", func() bool { return failed != nil || e.made > 0 })
			if !errors.Is(failed, c.want) || c.want == nil && failed != nil || (e.made > 0) != (c.want == nil) {
				t.Errorf("made %d, failed %v", e.made, failed)
			}
			_ = ln.Close()
		})
	}
}

// TestAccess: rules hold for an address however it is written (RELIABILITY.md,
// SOCKS and CONNECT).
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
		{nil, nil, "127.0.0.1", true},
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
	} {
		r := &layer.Access{Allow: c.allow, Deny: c.deny}
		err := r.Check(netip.MustParseAddr(c.addr))
		var why *layer.AccessError
		if (err == nil) != c.ok || err != nil && (!errors.Is(err, layer.ErrNotAllowed) || !errors.As(err, &why)) {
			t.Errorf("allow %v, deny %v: %s: %v", c.allow, c.deny, c.addr, err)
			continue
		}
		if err == nil {
			continue
		}
		want := layer.Special
		switch {
		case len(c.deny) > 0 && why.Network.IsValid() && why.Network == c.deny[0]:
			want = layer.Denied
		case len(c.allow) > 0 && !why.Network.IsValid():
			want = layer.NotListed
		}
		if why.Problem != want || !why.Addr.IsValid() || why.Addr.Zone() != "" {
			t.Errorf("allow %v, deny %v: %s: problem %d, %v", c.allow, c.deny, c.addr, why.Problem, err)
		}
	}
}

// TestProxySteady: once a proxy's layer has stepped aside a message through it
// costs no allocation (R6), and what stands above can have the kernel move its
// bytes (R37).
func TestProxySteady(t *testing.T) {
	server := []layer.Layer{layer.ProxyIn([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, 0), layer.SOCKSServer(layer.Version5), layer.ConnectServer()}
	client := []layer.Layer{layer.ProxyOut(layer.ProxyV2, nil, nil), layer.SOCKS5("a.example:1"), layer.Connect("b.example:2")}
	for _, name := range weir.Backends() {
		if name == "portable" {
			continue // package net's own
		}
		if n := steady(t, name, server, client); n != 0 {
			t.Errorf("%s: %v allocations a message", name, n)
		}
	}
	sim := weirtest.NewSim(t, 1)
	here, there := sim.Host("here"), sim.Host("there")
	e := &ear{}
	if _, err := here.Loop().Listen("tcp", ":7000", layer.Server(func(weir.Transport) weir.Protocol { return e }, server...)); err != nil {
		t.Fatal(err)
	}
	there.Loop().Connect("tcp", "here:7000", layer.Client(&ear{}, client...))
	sim.Until("the connection", func() bool { return e.made > 0 })
	if _, ok := e.tr.(weir.Splicer); !ok {
		t.Error("what stands above three proxies cannot be spliced")
	}
}
