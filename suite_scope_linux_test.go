package weir_test

import (
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
)

// inNamespace runs f on each native backend in a network of its own, where ip
// makes what links and addresses the lines say. It takes root and iproute2.
func inNamespace(t *testing.T, lines []string, f func(t *testing.T, l *weir.Loop, n *names)) {
	t.Helper()
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			if name == "portable" {
				t.Skip("package net makes sockets on other threads, which are in another network")
			}
			skipRefused(t, name)
			// Never unlocked: the thread ends with the test's goroutine, and the
			// network with it.
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				t.Skipf("no network of its own: %v", err)
			}
			for _, line := range append([]string{"link set lo up"}, lines...) {
				if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
					t.Skipf("ip %s: %v: %s", line, err, out)
				}
			}
			n := &names{addrs: map[string][]netip.Addr{}}
			l := newLoop(t, weir.WithBackendName(name), weir.WithResolver(n), weir.WithLogger(discard()))
			defer l.Close()
			f(t, l, n)
		})
	}
}

// TestScope: scope ids survive from name to peer address, for streams and
// datagrams (behaviour 68, R47).
func TestScope(t *testing.T) {
	inNamespace(t, []string{"link add d0 type veth peer name p0", "link set p0 up", "link set d0 up", "-6 addr add fe80::7/64 dev d0 nodad"},
		func(t *testing.T, l *weir.Loop, n *names) {
			var server *dialed
			ln, err := l.Listen("tcp6", "[fe80::7%d0]:0", func(weir.Transport) weir.Protocol { server = &dialed{}; return server })
			if err != nil {
				t.Fatal(err)
			}
			at := ln.Addr().(*net.TCPAddr)
			if at.Zone != "d0" {
				t.Errorf("listens on %v", at)
			}
			scoped := netip.MustParseAddr("fe80::7%d0")
			n.addrs["neighbour"] = []netip.Addr{scoped}
			p := &dialed{}
			_, port, _ := net.SplitHostPort(at.String())
			l.Connect("tcp", "neighbour:"+port, p)
			turns(t, l, "a connection", func() bool { return p.ended > 0 && server != nil && server.t != nil })
			if p.t == nil {
				t.Fatal(p.err)
			}
			for _, a := range []net.Addr{p.t.RemoteAddr(), p.t.LocalAddr(), server.t.RemoteAddr(), server.t.LocalAddr()} {
				if a.(*net.TCPAddr).Zone != "d0" {
					t.Errorf("an address without its scope: %v", a)
				}
			}
			a, b := &packets{}, &packets{}
			ea, err := l.ListenPacket("udp6", "[fe80::7%d0]:0", a)
			if err != nil {
				t.Fatal(err)
			}
			eb, err := l.ListenPacket("udp6", "[::]:0", b)
			if err != nil {
				t.Fatal(err)
			}
			to := ea.Local()
			if to.IP.Addr() != scoped {
				t.Errorf("takes datagrams at %v", to)
			}
			if err := eb.SendTo([]byte("x"), to); err != nil {
				t.Fatal(err)
			}
			turns(t, l, "a datagram", func() bool { return len(a.got) == 1 })
			if a.from[0].IP.Addr() != scoped {
				t.Errorf("from %v", a.from[0])
			}
		})
}

// TestBlackHole: where one family leads nowhere, the other is connected within
// 300 ms; and the address to connect from can be chosen (R46, R47).
func TestBlackHole(t *testing.T) {
	inNamespace(t, []string{
		"link add d0 type veth peer name p0", "link set p0 up", "link set d0 up", "-6 addr add 2001:db8:1::1/64 dev d0 nodad", "-6 route add 2001:db8:2::/64 dev d0",
		"neigh add 2001:db8:2::1 lladdr 02:00:00:00:00:01 dev d0", // or the kernel itself finds nobody
		"addr add 10.1.0.1/24 dev d0", "link add d1 type veth peer name p1", "link set p1 up", "link set d1 up", "addr add 10.2.0.1/24 dev d1",
	}, func(t *testing.T, l *weir.Loop, n *names) {
		var server *dialed
		ln, err := l.Listen("tcp4", "10.1.0.1:0", func(weir.Transport) weir.Protocol { server = &dialed{}; return server })
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		n.addrs["both"] = []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("2001:db8:2::1")}
		p := &dialed{}
		start := l.Now()
		l.Connect("tcp", "both:"+port, p)
		turns(t, l, "a connection", func() bool { return p.ended > 0 })
		took := l.Now().Sub(start)
		if p.t == nil {
			t.Fatal(p.err)
		}
		// IPv6 goes first (RFC 6724), and has a head start of 250 ms. That it has no
		// more is shown by TestConnecting, on a clock that a busy machine leaves alone.
		if took < 250*time.Millisecond {
			t.Errorf("connected to %v after %v", p.t.RemoteAddr(), took)
		}
		p, server = &dialed{}, nil
		l.Connect("tcp", "both:"+port, p, weir.WithLocalAddr(netip.MustParseAddrPort("10.2.0.1:0")))
		turns(t, l, "a connection", func() bool { return p.ended > 0 && (server != nil && server.t != nil || p.err != nil) })
		if p.t == nil {
			t.Fatal(p.err)
		}
		if from := server.t.RemoteAddr().(*net.TCPAddr).IP.String(); from != "10.2.0.1" {
			t.Errorf("connected from %s", from)
		}
	})
}
