package contract

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/tests/internal/rig"
)

// inNamespace runs f on each native backend in a network of its own, where ip
// makes the links and addresses given by the lines. It needs root and iproute2.
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
			settle(t)
			n := &names{addrs: map[string][]netip.Addr{}}
			l := newLoop(t, weir.WithBackendName(name), weir.WithResolver(n), weir.WithLogger(discard()))
			defer l.Close()
			f(t, l, n)
		})
	}
}

// settle waits until the links that are up have their carrier and their addresses. The
// kernel gets there on its own time, and a connect that it overtakes may lose its first
// packet or find no route.
func settle(t *testing.T) {
	t.Helper()
	show := func(words ...string) string {
		out, err := exec.Command("ip", append([]string{"-o"}, words...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %s: %v: %s", words, err, out)
		}
		return string(out)
	}
	for range 500 {
		if !strings.Contains(show("link", "show", "up"), " state DOWN ") && show("-6", "addr", "show", "tentative") == "" {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatalf("the network does not settle:\n%s%s", show("link"), show("-6", "addr"))
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

// TestBlackHole: if one family leads nowhere, the other is connected within 300
// ms; and the address to connect from can be chosen (R46, R47).
func TestBlackHole(t *testing.T) {
	inNamespace(t, []string{
		"link add d0 type veth peer name p0", "link set p0 up", "link set d0 up", "-6 addr add 2001:db8:1::1/64 dev d0 nodad", "-6 route add 2001:db8:2::/64 dev d0",
		"neigh add 2001:db8:2::1 lladdr 02:00:00:00:00:01 dev d0", // or the kernel itself finds no one
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
		// IPv6 goes first (RFC 6724), and has a head start of 250 ms. TestConnecting
		// shows that it has no more, on a clock that a busy machine does not disturb.
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

// TestAllRefused: if no address answers, each is listed with its own error,
// including those that the routes forbid (behaviour 65, R46).
func TestAllRefused(t *testing.T) {
	inNamespace(t, []string{
		"link add d0 type veth peer name p0", "link set p0 up", "link set d0 up", "addr add 10.1.0.1/24 dev d0", "-6 addr add 2001:db8:1::1/128 dev lo nodad",
		"route add unreachable 10.9.0.0/16", "route add prohibit 10.8.0.0/16", "-6 route add unreachable 2001:db8:9::/48",
	}, func(t *testing.T, l *weir.Loop, n *names) {
		want := map[string]syscall.Errno{
			"10.1.0.1": syscall.ECONNREFUSED, "2001:db8:1::1": syscall.ECONNREFUSED, "10.9.0.1": syscall.EHOSTUNREACH,
			"10.8.0.1": syscall.EACCES, "2001:db8:9::1": syscall.EHOSTUNREACH, "10.77.0.1": syscall.ENETUNREACH,
		}
		for a := range want {
			n.addrs["all"] = append(n.addrs["all"], netip.MustParseAddr(a))
		}
		for _, opts := range [][]weir.ConnectOption{nil, {weir.WithSequential()}} {
			p := &dialed{}
			start := l.Now()
			l.Connect("tcp", "all:9", p, opts...)
			turns(t, l, "the failure", func() bool { return p.ended > 0 })
			if p.err == nil || len(p.err.Attempts) != len(want) {
				t.Fatalf("%v", p.err)
			}
			for _, a := range p.err.Attempts {
				ip := a.Addr.(*net.TCPAddr).IP.String()
				if !errors.Is(a.Err, want[ip]) {
					t.Errorf("%s: %v, want %v", ip, a.Err, want[ip])
				}
				if !strings.Contains(p.err.Error(), ip) {
					t.Errorf("%s is not in: %v", ip, p.err)
				}
			}
			if took := l.Now().Sub(start); took > time.Second {
				t.Errorf("errors that came at once took %v", took)
			}
		}
	})
}

// secureDialed connects again and again, and notes how it went.
type secureDialed struct {
	weir.NopProtocol
	r       *weir.Redialer
	t       weir.Transport
	resumed []bool // of each connection
	failed  []*weir.ConnectError
	lost    int
}

func (d *secureDialed) ConnectionMade(t weir.Transport) {
	d.t = t
	s, _ := weir.As[interface{ ConnectionState() tls.ConnectionState }](t)
	d.resumed = append(d.resumed, s.ConnectionState().DidResume)
	_, _ = t.Write([]byte("x")) // the ticket comes before the echo
}
func (d *secureDialed) ConnectionLost(error) { d.lost++; d.t = nil; d.r.Again() }
func (d *secureDialed) ConnectFailed(err *weir.ConnectError) {
	d.failed = append(d.failed, err)
	d.r.Again()
}
func (d *secureDialed) begin(r *weir.Redialer) weir.Protocol { d.r = r; return d }
func (d *secureDialed) layered(l layer.Layer) func(*weir.Redialer) weir.Protocol {
	return func(r *weir.Redialer) weir.Protocol { return layer.Client(d.begin(r), l) }
}

// TestServerRestarts: the server ends and its network goes; when both are back the
// client is connected again, and TLS resumes its session (R39, R45).
func TestServerRestarts(t *testing.T) {
	own, trust := rig.TLS(t)
	own[0].SetSessionTicketKeys([][32]byte{{1}}) // as servers that restart keep them
	inNamespace(t, []string{
		"link add d0 type veth peer name p0", "link set p0 up", "link set d0 up", "addr add 10.1.0.1/24 dev d0",
	}, func(t *testing.T, l *weir.Loop, n *names) {
		n.addrs["server"] = []netip.Addr{netip.MustParseAddr("10.1.0.1")}
		var conns []weir.Transport
		serve := func(at string) *weir.Listener {
			ln, err := l.Listen("tcp4", at, layer.Server(func(t weir.Transport) weir.Protocol {
				conns = append(conns, t)
				return weir.DataFunc(t.Write)
			}, layer.TLSServer(own[0])))
			if err != nil {
				t.Fatal(err)
			}
			return ln
		}
		ln := serve("10.1.0.1:0")
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		d := &secureDialed{}
		l.Redial("tcp", "server:"+port, weir.Backoff{First: 10 * time.Millisecond, Most: 50 * time.Millisecond}, d.layered(layer.TLS(trust)), weir.WithConnectTimeout(time.Second))
		for round := range 3 {
			turns(t, l, "a connection", func() bool { return d.t != nil && len(conns) == round+1 && len(d.resumed) == round+1 })
			echoed := len(conns)
			turns(t, l, "the first byte", func() bool { return d.t != nil && conns[echoed-1].Buffered() == 0 })
			_ = ln.Close()
			conns[round].Abort()
			turns(t, l, "the loss", func() bool { return d.lost == round+1 })
			ip(t, "addr del 10.1.0.1/24 dev d0")
			ip(t, "route add unreachable 10.1.0.0/24")
			failed := len(d.failed)
			turns(t, l, "two failures", func() bool { return len(d.failed) >= failed+2 })
			for i, err := range d.failed {
				if err.Attempt == 0 || len(err.Attempts) != 1 || err.Address != "server:"+port {
					t.Errorf("failure %d: %v, attempt %d", i, err, err.Attempt)
				}
			}
			ip(t, "route del unreachable 10.1.0.0/24")
			ip(t, "addr add 10.1.0.1/24 dev d0")
			ln = serve("10.1.0.1:" + port)
		}
		turns(t, l, "the last connection", func() bool { return d.t != nil && len(d.resumed) == 4 })
		if d.resumed[0] || !d.resumed[1] || !d.resumed[2] || !d.resumed[3] {
			t.Errorf("resumed: %v", d.resumed)
		}
		d.r.Stop()
	})
}

// ip changes the network that the test is in.
func ip(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", line, err, out)
	}
}
