package proxy_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/weirtest"
)

// datagrams is a packet protocol that keeps what comes, or answers it.
type datagrams struct {
	e      *weir.PacketEndpoint
	got    []string
	from   []netip.AddrPort
	answer bool
}

func (d *datagrams) EndpointMade(e *weir.PacketEndpoint) { d.e = e }
func (d *datagrams) EndpointLost(error)                  {}
func (d *datagrams) PacketReceived(p []byte, from weir.PacketAddr) {
	d.got, d.from = append(d.got, string(p)), append(d.from, from.IP)
	if d.answer {
		_ = d.e.SendTo(append([]byte("re:"), p...), from)
	}
}

func openDatagrams(t *testing.T, l *weir.Loop, at string, answer bool) *datagrams {
	t.Helper()
	d := &datagrams{answer: answer}
	e, err := l.ListenPacket("udp4", at, d)
	if err != nil {
		t.Fatal(err)
	}
	d.e = e
	return d
}

// table is a resolver of a few names.
type table map[string][]netip.Addr

func (n table) LookupNetIP(l *weir.Loop, _, host string, done func([]netip.Addr, error)) func() {
	c := l.Soon(func() {
		if n[host] == nil {
			done(nil, errors.New("no such name"))
			return
		}
		done(n[host], nil)
	})
	return func() { c.Cancel() }
}

// associated is a proxy, a client with an association, and what both heard.
type associated struct {
	a     *proxy.Association
	got   []string
	from  []netip.AddrPort
	lost  []error
	at    net.Addr
	count []proxy.AssociationCount
}

func associate(t *testing.T, server, client *weir.Loop, at string, access *proxy.Access, so []proxy.ServerOption, co []proxy.ClientOption) *associated {
	t.Helper()
	r := &associated{}
	d := &proxy.Dialer{
		Access: access, Resolver: table{
			"one.test":  {netip.MustParseAddr("127.0.0.1")},
			"two.test":  {netip.MustParseAddr("203.0.113.4"), netip.MustParseAddr("203.0.113.3")},
			"six.test":  {netip.MustParseAddr("2001:db8::3"), netip.MustParseAddr("203.0.113.3")},
			"near.test": {netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")},
		},
		Associated:  func(_ *proxy.Request, at net.Addr) { r.at = at },
		Dissociated: func(_ *proxy.Request, c proxy.AssociationCount) { r.count = append(r.count, c) },
	}
	ln, err := server.Listen("tcp", at, proxy.Serve(d, proxy.SOCKSServer(proxy.AnyVersion, so...)))
	if err != nil {
		t.Fatal(err)
	}
	r.a = proxy.NewAssociation(client, proxy.AssociationConfig{
		Connect: func(l *weir.Loop, p weir.Protocol) func() {
			c := l.Connect("tcp", ln.Addr().String(), p)
			return func() { c.Stop() }
		},
		Client: co,
		Received: func(data []byte, from netip.AddrPort) {
			r.got, r.from = append(r.got, string(data)), append(r.from, from)
		},
		Lost: func(err error) { r.lost = append(r.lost, err) },
	})
	return r
}

// TestAssociate: datagrams through a proxy, to addresses and to a name, on every
// backend; the association ends with its connection.
func TestAssociate(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithErrorHandler(func(err error) { t.Error(err) }))
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			target := openDatagrams(t, l, "127.0.0.1:0", true)
			users := proxy.NewUsers(map[string]string{"u": "p"})
			r := associate(t, l, l, "127.0.0.1:0", &proxy.Access{Private: true},
				[]proxy.ServerOption{proxy.WithAssociate(), proxy.WithUsers(users)}, []proxy.ClientOption{proxy.WithCredentials("u", "p")})
			to := target.e.Local().IP
			// What is sent before the proxy has answered waits for it.
			for _, p := range []string{"one", ""} {
				if err := r.a.SendTo([]byte(p), to); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.a.SendToHost([]byte("three"), "one.test", to.Port()); err != nil {
				t.Fatal(err)
			}
			weirtest.Until(t, l, "answers", func() bool { return len(r.got) == 3 })
			slices.Sort(r.got)
			if !slices.Equal(r.got, []string{"re:", "re:one", "re:three"}) || r.from[0] != to {
				t.Errorf("%q from %v", r.got, r.from)
			}
			if err := r.a.SendToHost(nil, "bad name", 1); err == nil {
				t.Error("a bad name was taken")
			}
			// What others send to either end is dropped.
			outside := openDatagrams(t, l, "127.0.0.1:0", false)
			for _, at := range []netip.AddrPort{target.from[0], netip.MustParseAddrPort(r.at.String())} {
				if err := outside.e.SendTo([]byte{0, 0, 0, 1, 127, 0, 0, 1, byte(to.Port() >> 8), byte(to.Port()), 'x'}, weir.PacketAddr{IP: at}); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.a.SendTo([]byte("last"), to); err != nil {
				t.Fatal(err)
			}
			weirtest.Until(t, l, "the last", func() bool { return len(r.got) == 4 })
			r.a.Close()
			weirtest.Until(t, l, "the end", func() bool { return len(r.lost) == 1 && len(r.count) == 1 })
			if c := r.count[0]; r.lost[0] != nil || c.Out != 4 || c.Back != 4 || c.Refused != 2 || c.BytesOut != 12 || c.BytesBack != 24 || len(target.got) != 4 {
				t.Errorf("lost %v, %+v, the target got %q", r.lost, c, target.got)
			}
			if err := r.a.SendTo(nil, to); !errors.Is(err, weir.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

// TestAssociateRules: each datagram's address is held to the rules, also one that a
// name stands for; fragments and what is no datagram of SOCKS5 are refused.
func TestAssociateRules(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	a := netip.MustParseAddr
	client := s.Host("client", a("203.0.113.1")).Loop()
	server := s.Host("proxy", a("203.0.113.2")).Loop()
	hosts := s.Host("hosts", a("203.0.113.3"), a("10.0.0.3"), a("169.254.169.254")).Loop()
	public := openDatagrams(t, hosts, "203.0.113.3:7", true)
	private := openDatagrams(t, hosts, "10.0.0.3:7", true)
	metadata := openDatagrams(t, hosts, "169.254.169.254:7", true)
	r := associate(t, server, client, "203.0.113.2:1080", nil, []proxy.ServerOption{proxy.WithAssociate()}, nil)
	for _, to := range []string{"10.0.0.3:7", "169.254.169.254:7", "[::ffff:10.0.0.3]:7", "203.0.113.3:7"} {
		if err := r.a.SendTo([]byte("x"), netip.MustParseAddrPort(to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.a.SendToHost([]byte("x"), "one.test", 7); err != nil { // loopback
		t.Fatal(err)
	}
	s.Until("an answer", func() bool { return len(r.got) == 1 })
	at := weir.PacketAddr{IP: netip.MustParseAddrPort(r.at.String())}
	raw := openDatagrams(t, client, "203.0.113.1:0", false) // another port of the client's
	bad := [][]byte{{}, {0, 0, 0}, {0, 0, 1, 1, 203, 0, 113, 3, 0, 7, 'f'}, {0, 0, 0, 9, 1, 2, 3, 4, 0, 7}, {0, 0, 0, 3, 0, 0, 7}, {0, 0, 0, 4, 1, 2, 0, 7}}
	for _, p := range bad {
		if err := raw.e.SendTo(p, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	r.a.Close()
	s.Until("the end", func() bool { return len(r.count) == 1 })
	if len(public.got) != 1 || len(private.got)+len(metadata.got) != 0 {
		t.Errorf("public %q, private %q, metadata %q", public.got, private.got, metadata.got)
	}
	if c := r.count[0]; c.Out != 1 || c.Refused != 4+int64(len(bad)) {
		t.Errorf("%+v", c)
	}
}

// TestAssociateFragments: a client's own fragments are refused and counted apart from
// what cannot be read.
func TestAssociateFragments(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	a := netip.MustParseAddr
	client := s.Host("client", a("203.0.113.1")).Loop()
	server := s.Host("proxy", a("203.0.113.2")).Loop()
	target := openDatagrams(t, s.Host("host", a("203.0.113.3")).Loop(), "203.0.113.3:7", true)
	r := associate(t, server, client, "203.0.113.2:1080", nil, []proxy.ServerOption{proxy.WithAssociate()}, nil)
	s.Until("it", func() bool { return r.at != nil })
	raw := openDatagrams(t, client, "203.0.113.1:0", false)
	at := weir.PacketAddr{IP: netip.MustParseAddrPort(r.at.String())}
	for _, p := range [][]byte{{0, 0, 1, 1, 203, 0, 113, 3, 0, 7, 'f'}, {0, 0}, {0, 0, 0, 1, 203, 0, 113, 3, 0, 7, 'w'}} {
		if err := raw.e.SendTo(p, at); err != nil {
			t.Fatal(err)
		}
	}
	s.Until("an answer", func() bool { return len(raw.got) == 1 })
	if raw.got[0] != "\x00\x00\x00\x01\xcb\x00\x71\x03\x00\x07re:w" || !slices.Equal(target.got, []string{"w"}) {
		t.Errorf("%q, the target got %q", raw.got, target.got)
	}
	r.a.Close()
	s.Until("the end", func() bool { return len(r.count) == 1 })
	if c := r.count[0]; c.Refused != 1 || c.Dropped != 1 {
		t.Errorf("%+v", c)
	}
}

// TestAssociateCounts: a datagram that the network refuses after the proxy has sent it counts as
// dropped, on the way to a destination and on the way back.
func TestAssociateCounts(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	a := netip.MustParseAddr
	client := s.Host("client", a("203.0.113.1")).Loop()
	server := s.Host("proxy", a("203.0.113.2")).Loop()
	target := openDatagrams(t, s.Host("host", a("203.0.113.3")).Loop(), "203.0.113.3:7", true)
	r := associate(t, server, client, "203.0.113.2:1080", nil, []proxy.ServerOption{proxy.WithAssociate()}, nil)
	s.Until("it", func() bool { return r.at != nil })
	raw := openDatagrams(t, client, "203.0.113.1:0", false)
	at := weir.PacketAddr{IP: netip.MustParseAddrPort(r.at.String())}
	// Only one of these gets to its destination, whose answer is the first to get back.
	for _, p := range []string{"\x00\x00\x00\x01\xcb\x00\x71\x03\x00\x07four", "\x00\x00\x00\x01\xcb\x00\x71\x03\x00\x09no", "\x00\x00\x00\x01\xcb\x00\x71\x03\x00\x09no"} {
		if err := raw.e.SendTo([]byte(p), at); err != nil {
			t.Fatal(err)
		}
	}
	s.Until("an answer", func() bool { return len(raw.got) == 1 })
	raw.e.Abort() // the client's port is closed
	if err := target.e.SendTo([]byte("late"), weir.PacketAddr{IP: target.from[0]}); err != nil {
		t.Fatal(err)
	}
	if err := s.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	r.a.Close()
	s.Until("the end", func() bool { return len(r.count) == 1 })
	if c := r.count[0]; c.Out != 1 || c.Back != 1 || c.Dropped != 3 || c.BytesOut < 2 || c.BytesOut > 4 || c.BytesBack == 0 {
		t.Errorf("%+v", c)
	}
}

// TestAssociateNextAddress: where the network refuses a name's address, the next datagram to that
// port goes to the next one, and to that one later too; a datagram that is refused at once goes
// there itself. Each is counted, as sent or as dropped.
func TestAssociateNextAddress(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	a := netip.MustParseAddr
	client, server := s.Host("client", a("203.0.113.1")).Loop(), s.Host("proxy", a("203.0.113.2")).Loop()
	second := openDatagrams(t, s.Host("second", a("203.0.113.3")).Loop(), "203.0.113.3:7", true)
	first := openDatagrams(t, s.Host("first", a("203.0.113.4")).Loop(), "203.0.113.4:9", true)
	r := associate(t, server, client, "203.0.113.2:1080", nil, []proxy.ServerOption{proxy.WithAssociate()}, nil)
	for _, step := range []struct {
		text, name string
		port       uint16
		answers    int // in all
	}{
		{"a", "two.test", 7, 0}, // refused
		{"b", "two.test", 7, 1},
		{"c", "two.test", 9, 2}, // another port
		{"d", "six.test", 7, 3}, // the proxy has no IPv6
		{"e", "two.test", 7, 4},
		{"f", "two.test", 11, 4}, // refused at both
		{"g", "two.test", 11, 4},
		{"h", "two.test", 7, 5},
	} {
		if err := r.a.SendToHost([]byte(step.text), step.name, step.port); err != nil {
			t.Fatal(err)
		}
		if err := s.RunFor(2 * time.Second); err != nil { // names are looked up again meanwhile
			t.Fatal(err)
		}
		if len(r.got) != step.answers {
			t.Errorf("after %q to %s, port %d: answers %q", step.text, step.name, step.port, r.got)
		}
	}
	if !slices.Equal(second.got, []string{"b", "d", "e", "h"}) || !slices.Equal(first.got, []string{"c"}) {
		t.Errorf("%q came to one host, %q to the other", second.got, first.got)
	}
	r.a.Close()
	s.Until("the end", func() bool { return len(r.count) == 1 })
	if c := r.count[0]; c.Out != 5 || c.Back != 5 || c.Dropped != 3 || c.Refused != 0 {
		t.Errorf("%+v", c)
	}
}

// TestAssociateNextAddressReal is the same on every backend that hears refusals.
func TestAssociateNextAddressReal(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithErrorHandler(func(err error) { t.Error(err) }))
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			if name == "portable" {
				t.Skip("package net tells no refusals to a socket that is not connected")
			}
			target := openDatagrams(t, l, "127.0.0.1:0", true)
			r := associate(t, l, l, "127.0.0.1:0", &proxy.Access{Private: true}, []proxy.ServerOption{proxy.WithAssociate()}, nil)
			to := target.e.Local().IP
			sent := int64(0)
			named := func() bool { return slices.Contains(r.got, "re:name") }
			for !named() {
				before := len(r.got)
				if err := errors.Join(r.a.SendToHost([]byte("name"), "near.test", to.Port()), r.a.SendTo([]byte("address"), to)); err != nil {
					t.Fatal(err)
				}
				if sent += 2; sent > 10 {
					t.Fatalf("a name's second address is not tried: %q", r.got)
				}
				weirtest.Until(t, l, "an answer", func() bool { return len(r.got) > before && r.got[len(r.got)-1] == "re:address" })
			}
			r.a.Close()
			weirtest.Until(t, l, "the end", func() bool { return len(r.count) == 1 })
			if c := r.count[0]; c.Out+c.Dropped != sent || c.Dropped == 0 || c.Out != int64(len(target.got)) || c.Back != c.Out {
				t.Errorf("%d sent, %+v, %q came", sent, c, target.got)
			}
		})
	}
}

// TestAssociateRefused: a proxy that does not serve it says so, and so does the
// association.
func TestAssociateRefused(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	a := netip.MustParseAddr
	client, server := s.Host("client", a("203.0.113.1")).Loop(), s.Host("proxy", a("203.0.113.2")).Loop()
	r := associate(t, server, client, "203.0.113.2:1080", nil, nil, nil)
	s.Until("the end", func() bool { return len(r.lost) == 1 })
	if !errors.Is(r.lost[0], proxy.ErrCommand) {
		t.Error(r.lost[0])
	}
}

// stalled is an association whose proxy never answers.
func stalled(t *testing.T, l *weir.Loop, c proxy.AssociationConfig) *proxy.Association {
	t.Helper()
	c.Connect = func(*weir.Loop, weir.Protocol) func() { return func() {} }
	return proxy.NewAssociation(l, c)
}

// TestAssociationRoom: what waits for a proxy is bounded, in an association and in all that
// share a room, and has its room back when they end.
func TestAssociationRoom(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	l := s.Host("client").Loop()
	to := netip.MustParseAddrPort("203.0.113.9:7")
	troubles := 0
	c := proxy.AssociationConfig{Room: &proxy.AssociationRoom{}, Trouble: func(err error) {
		if troubles++; !errors.Is(err, weir.ErrClosed) {
			t.Error(err)
		}
	}}
	fill := func(a *proxy.Association, size int) (n int) {
		t.Helper()
		for ; n < 100; n++ {
			if err := a.SendTo(make([]byte, size), to); err != nil {
				if !errors.Is(err, weir.ErrSendBufferFull) {
					t.Fatal(err)
				}
				return n
			}
		}
		return n
	}
	for size, want := range map[int]int{0: 8, 1000: 8, 16 << 10: 3} {
		a := stalled(t, l, c)
		troubles = 0
		if n := fill(a, size); n != want {
			t.Errorf("%d datagrams of %d bytes wait, want %d", n, size, want)
		}
		if a.Close(); troubles != want {
			t.Errorf("%d of %d were told of", troubles, want)
		}
	}
	var all []*proxy.Association
	for range 10 {
		all = append(all, stalled(t, l, c))
		fill(all[len(all)-1], 15<<10)
	}
	if n := fill(stalled(t, l, c), 15<<10); n != 0 {
		t.Errorf("%d more were taken", n)
	}
	for _, a := range all {
		a.Close()
	}
	if n := fill(stalled(t, l, c), 15<<10); n != 4 {
		t.Errorf("%d were taken afterwards", n)
	}
}

// TestAssociationProxyGone: datagrams that wait for a proxy that cannot be reached are told of,
// each once, before the end is.
func TestAssociationProxyGone(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	l := s.Host("client").Loop()
	absent := s.Host("proxy").Addr(1080)
	var said []string
	a := proxy.NewAssociation(l, proxy.AssociationConfig{
		Connect: func(l *weir.Loop, p weir.Protocol) func() {
			c := l.Connect("tcp", absent, p)
			return func() { c.Stop() }
		},
		Trouble: func(err error) { said = append(said, "trouble "+fmt.Sprint(errors.Is(err, syscall.ECONNREFUSED))) },
		Lost:    func(err error) { said = append(said, "lost "+fmt.Sprint(errors.Is(err, syscall.ECONNREFUSED))) },
	})
	for range 3 {
		if err := a.SendTo([]byte("x"), netip.MustParseAddrPort("203.0.113.9:7")); err != nil {
			t.Fatal(err)
		}
	}
	s.Until("the end", func() bool { return len(said) == 4 })
	if want := []string{"trouble true", "trouble true", "trouble true", "lost true"}; !slices.Equal(said, want) {
		t.Errorf("heard %v", said)
	}
}

// silence is a resolver that never answers.
type silence struct{}

func (silence) LookupNetIP(*weir.Loop, string, string, func([]netip.Addr, error)) func() {
	return func() {}
}

// TestAssociateBytes: the bytes that wait for names are bounded for each client.
func TestAssociateBytes(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	a := netip.MustParseAddr
	client, server := s.Host("client", a("203.0.113.1")).Loop(), s.Host("proxy", a("203.0.113.2")).Loop()
	var count []proxy.AssociationCount
	d := &proxy.Dialer{Resolver: silence{}, Dissociated: func(_ *proxy.Request, c proxy.AssociationCount) { count = append(count, c) }}
	if _, err := server.Listen("tcp", "203.0.113.2:1080", proxy.Serve(d, proxy.SOCKSServer(proxy.AnyVersion, proxy.WithAssociate()))); err != nil {
		t.Fatal(err)
	}
	r := proxy.NewAssociation(client, proxy.AssociationConfig{Connect: func(l *weir.Loop, p weir.Protocol) func() {
		c := l.Connect("tcp", "203.0.113.2:1080", p)
		return func() { c.Stop() }
	}})
	if err := s.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := r.SendToHost(make([]byte, 10_000), fmt.Sprint("name", i, ".test"), 7); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	r.Close()
	s.Until("the end", func() bool { return len(count) == 1 })
	if count[0].Dropped != 10 {
		t.Errorf("%+v", count[0])
	}
}
