package contract

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/weirtest"
)

// TestOtherSockets runs what stream transports promise on SCTP and vsock (R27), where the
// kernel has them: scripts/otherkernel.sh boots one. The cases that need half-close are
// skipped for SCTP, which has none.
func TestOtherSockets(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			skipRefused(t, name)
			for _, network := range []string{"sctp", "vsock"} {
				t.Run(network, func(t *testing.T) {
					needSockets(t, name, network)
					weirtest.TestStreams(t, weirtest.LoopStreams(network, weir.WithBackendName(name)))
				})
			}
		})
	}
}

// otherEnd is a protocol that keeps what comes.
type otherEnd struct {
	t    weir.Transport
	got  string
	lost bool
	err  error
}

func (e *otherEnd) ConnectionMade(t weir.Transport) { e.t = t }
func (e *otherEnd) DataReceived(p []byte) (int, error) {
	e.got += string(p)
	return len(p), nil
}
func (e *otherEnd) ConnectionLost(err error)             { e.lost, e.err = true, err }
func (e *otherEnd) ConnectFailed(err *weir.ConnectError) { e.err = err }

func refuseAll(weir.Transport) weir.Protocol { return nil }

// anyPort is where tests listen on a network.
func anyPort(network string) string {
	if network == "vsock" {
		return "local:0"
	}
	return "127.0.0.1:0"
}

// needSockets skips where the backend or the kernel has no sockets of network.
func needSockets(t *testing.T, backend, network string) {
	t.Helper()
	l, err := weir.NewLoop(weir.WithBackendName(backend), quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var missing *weir.MissingSocketError
	if _, err = l.Listen(network, anyPort(network), refuseAll); errors.As(err, &missing) {
		t.Skip(missing)
	} else if err != nil {
		t.Fatal(err)
	}
}

// TestMissingSockets: what a system lacks is named, with the module that brings it.
func TestMissingSockets(t *testing.T) {
	onBackends(t, func(t *testing.T, name string) {
		l, err := weir.NewLoop(weir.WithBackendName(name), quiet())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for _, c := range []struct{ network, address, module string }{
			{"sctp", "127.0.0.1:0", "sctp"},
			{"sctp", ":0", "sctp"},
			{"vsock", "local:0", "vsock"},
			{"rfcomm", ":0", "rfcomm"},
		} {
			ln, err := l.Listen(c.network, c.address, refuseAll)
			var missing *weir.MissingSocketError
			switch {
			case err == nil:
				t.Logf("%s: the kernel has it", c.network)
				_ = ln.Close()
				continue
			case !errors.As(err, &missing):
				t.Errorf("%s: %v, want a *MissingSocketError", c.network, err)
				continue
			}
			module := c.module
			if name == "portable" {
				module = ""
			} else if c.network == "vsock" && missing.Module == "vsock_loopback" {
				module = missing.Module // there are vsock sockets, but none to this machine
			}
			if missing.Network != c.network || missing.Module != module || !strings.Contains(err.Error(), module) {
				t.Errorf("%s: %+v, want the module %q", c.network, missing, module)
			}
			d := &otherEnd{}
			l.Connect(c.network, strings.Replace(c.address, ":0", ":9", 1), d)
			turns(t, l, "ConnectFailed", func() bool { return d.err != nil })
			missing = nil
			if !errors.As(d.err, &missing) || missing.Module != module {
				t.Errorf("Connect to %s: %v, want the module %q", c.network, d.err, module)
			}
		}
	})
}

// joined connects two ends on a network.
func joined(t *testing.T, l *weir.Loop, network, at, to string, listen, connect []weir.TCPOption) (server, client *otherEnd, ln *weir.Listener) {
	t.Helper()
	server, client = &otherEnd{}, &otherEnd{}
	ln, err := l.Listen(network, at, func(weir.Transport) weir.Protocol { return server }, weir.JoinOptions(listen...))
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if to != "" {
		addr = to + addr[strings.LastIndexByte(addr, ':'):]
	}
	l.Connect(network, addr, client, weir.JoinOptions(connect...))
	turns(t, l, "both ends connected", func() bool { return client.err != nil || server.t != nil && client.t != nil })
	if client.err != nil {
		t.Fatal(client.err)
	}
	return server, client, ln
}

// TestSCTP: the addresses of an association, its streams, and an end that is not a half.
func TestSCTP(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		needSockets(t, l.Backend().Name, "sctp")
		two := netip.MustParseAddr("127.0.0.2")
		three := netip.MustParseAddr("127.0.0.3")
		server, client, ln := joined(t, l, "sctp", "127.0.0.1:0", "127.0.0.2",
			[]weir.TCPOption{weir.WithSCTPAddrs(two), weir.WithSCTPStreams(7, 0)},
			[]weir.TCPOption{weir.WithSCTPAddrs(three, two), weir.WithSCTPStreams(5, 3)})
		at, ok := ln.Addr().(weir.SCTPAddr)
		if !ok || at.Port() == 0 {
			t.Errorf("the listener's address is %v, a %T", ln.Addr(), ln.Addr())
		}
		if a, ok := client.t.RemoteAddr().(weir.SCTPAddr); !ok || a.Port() != at.Port() || a.Addr() != two {
			t.Errorf("the client's peer is %v", client.t.RemoteAddr())
		}
		if a, ok := server.t.RemoteAddr().(weir.SCTPAddr); !ok || a != client.t.LocalAddr() {
			t.Errorf("the server's peer is %v, the client's address %v", server.t.RemoteAddr(), client.t.LocalAddr())
		}
		// A line of each end's: its addresses, its peer's, and then the streams.
		all, err := os.ReadFile("/proc/net/sctp/assocs")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"127.0.0.1 127.0.0.2 <->", "127.0.0.3 127.0.0.2 <->", "127.0.0.2 127.0.0.3 <->"} {
			if !strings.Contains(string(all), want) && !strings.HasPrefix(want, "127.0.0.2") {
				t.Errorf("no association has %q:\n%s", want, all)
			}
		}
		// The client asked for 5 out and takes 3; the server asked for 7.
		streams := 0
		for _, line := range strings.Split(string(all), "\n") {
			if _, after, ok := strings.Cut(line, "<->"); ok {
				f := strings.Fields(after)
				for i := 0; i+2 < len(f); i++ {
					if f[i] == "30000" || f[i] == "7500" { // the heartbeat's interval
						if f[i+1] == "5" && f[i+2] == "3" || f[i+1] == "3" && f[i+2] == "5" {
							streams++
						}
					}
				}
			}
		}
		if streams != 2 {
			t.Errorf("%d ends have 3 streams to the client and 5 from it:\n%s", streams, all)
		}
		// What is lost is sent again within less than a second, which is the system's least. A
		// path's timeout is known once it has carried something.
		_, _ = client.t.Write([]byte("hello"))
		turns(t, l, "a path with a short timeout", func() bool { return retransmitsSoon(t, string(all)) })
		if client.t.CanWriteEOF() {
			t.Error("CanWriteEOF is true")
		}
		// A message longer than the buffers takes several calls, and both ends' bytes
		// arrive before the end.
		text := strings.Repeat("0123456789abcdef", 1<<16)
		if _, err := client.t.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := client.t.Close(); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the end", func() bool { return server.lost })
		if server.got != "hello"+text || server.err != nil {
			t.Errorf("%d bytes came of %d, and then %v", len(server.got), len(text), server.err)
		}
		d := &otherEnd{}
		_ = ln.Close()
		l.Connect("sctp", at.String(), d)
		turns(t, l, "a refusal", func() bool { return d.err != nil })
		if !errors.Is(d.err, syscall.ECONNREFUSED) {
			t.Errorf("where nothing listens: %v", d.err)
		}
		if _, err := l.Listen("sctp4", "127.0.0.1:0", refuseAll, weir.WithSCTPAddrs(netip.IPv6Loopback())); err == nil {
			t.Error("an IPv4 listener took an IPv6 address")
		} else if bad := (*net.AddrError)(nil); !errors.As(err, &bad) {
			t.Errorf("an IPv6 address for an IPv4 listener: %v", err)
		}
	})
}

// retransmitsSoon reports whether the timeout of some path is shorter than a second. Times are
// in the kernel's ticks, of which assocs has 30 s, the time between heartbeats.
func retransmitsSoon(t *testing.T, assocs string) bool {
	t.Helper()
	second := 0
	for _, f := range strings.Fields(assocs) {
		if n, err := strconv.Atoi(f); err == nil && (n == 3000 || n == 7500 || n == 9000 || n == 30000) {
			second = n / 30
		}
	}
	paths, err := os.ReadFile("/proc/net/sctp/remaddr")
	if err != nil || second == 0 {
		t.Fatalf("no ticks in %s, %v", assocs, err)
	}
	for _, line := range strings.Split(string(paths), "\n") {
		f := strings.Fields(line) // the address, the association, whether heartbeats are sent, the timeout
		if len(f) < 4 {
			continue
		}
		if timeout, err := strconv.Atoi(f[3]); err == nil && timeout < second {
			return true
		}
	}
	return false
}

// TestVsock: the addresses of both ends, and the listener of every CID.
func TestVsock(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		needSockets(t, l.Backend().Name, "vsock")
		for _, at := range []string{"local:0", ":0"} {
			server, client, ln := joined(t, l, "vsock", at, "local", nil, nil)
			here, ok := ln.Addr().(weir.VsockAddr)
			if !ok || here.Port == 0 || here.Port == 1<<32-1 {
				t.Errorf("%s: the listener's address is %v, a %T", at, ln.Addr(), ln.Addr())
			}
			for _, a := range []net.Addr{client.t.RemoteAddr(), server.t.LocalAddr()} {
				if a != (weir.VsockAddr{CID: weir.VsockLocal, Port: here.Port}) {
					t.Errorf("%s: the server's end is %v", at, a)
				}
			}
			if server.t.RemoteAddr() != client.t.LocalAddr() {
				t.Errorf("%s: the server's peer is %v, the client's address %v", at, server.t.RemoteAddr(), client.t.LocalAddr())
			}
			_, _ = client.t.Write([]byte("hello"))
			_ = client.t.Close()
			turns(t, l, "the end", func() bool { return server.lost })
			if server.got != "hello" || server.err != nil {
				t.Errorf("%s: %q came, and then %v", at, server.got, server.err)
			}
			_ = ln.Close()
		}
	})
}

// TestSCTPPeers: an association begins with a further address of its peer when the first
// does not answer, and a filter sees each of them.
func TestSCTPPeers(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		needSockets(t, l.Backend().Name, "sctp")
		three := netip.MustParseAddr("127.0.0.3")
		server := &otherEnd{}
		ln, err := l.Listen("sctp", "127.0.0.3:0", func(weir.Transport) weir.Protocol { return server })
		if err != nil {
			t.Fatal(err)
		}
		port := ln.Addr().String()
		port = port[strings.LastIndexByte(port, ':'):]
		// Nothing comes back from a network that is for documentation.
		client := &otherEnd{}
		l.Connect("sctp", "127.0.0.3"+port, client, weir.WithSCTPPeers(netip.MustParseAddr("192.0.2.1"), three))
		turns(t, l, "the connection", func() bool { return client.err != nil || client.t != nil && server.t != nil })
		if client.err != nil {
			t.Fatal(client.err)
		}
		if _, err := client.t.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "its bytes", func() bool { return server.got == "hello" })
		refused := &otherEnd{}
		l.Connect("sctp", "127.0.0.2"+port, refused, weir.WithSCTPPeers(three), weir.WithAddrFilter(func(a netip.AddrPort) error {
			if a.Addr() == three {
				return errors.New("not that one")
			}
			return nil
		}))
		turns(t, l, "the refusal", func() bool { return refused.err != nil })
		if !strings.Contains(refused.err.Error(), "not that one") {
			t.Errorf("a filter's address was connected to: %v", refused.err)
		}
		unheard := &otherEnd{}
		l.Connect("sctp", "127.0.0.2:1", unheard, weir.WithSCTPPeers(three))
		turns(t, l, "the failure", func() bool { return unheard.err != nil })
		if !errors.Is(unheard.err, syscall.ECONNREFUSED) {
			t.Errorf("where nothing listens: %v", unheard.err)
		}
	})
}
