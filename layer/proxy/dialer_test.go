package proxy_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// served is a proxy that dials, a client's machine and a destination's machine,
// in a simulated world with public addresses.
type served struct {
	*weirtest.Sim
	proxy, client, target *weirtest.SimHost
	listener              *weir.Listener
	failures              []error
	done                  []relay.Result
}

func newServed(t *testing.T, d *proxy.Dialer, server layer.Layer, opts ...weirtest.SimOption) *served {
	t.Helper()
	s := &served{Sim: weirtest.NewSim(t, 3, opts...)}
	at := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
	s.proxy, s.client, s.target = s.Host("proxy", at(1)), s.Host("client", at(2)), s.Host("target", at(3))
	d.Failed = func(_ *proxy.Request, err error) { s.failures = append(s.failures, err) }
	d.Done = func(_ *proxy.Request, res relay.Result) { s.done = append(s.done, res) }
	var err error
	if s.listener, err = s.proxy.Loop().Listen("tcp", ":1080", proxy.Serve(d, server)); err != nil {
		t.Fatal(err)
	}
	return s
}

// answering is a destination that replies to its input once that has ended.
func answering() *layertest.Ear {
	e := &layertest.Ear{KeepOpen: true}
	e.OnEnd = func() { _, _ = e.Tr.Write([]byte("reply")); _ = e.Tr.Close() }
	return e
}

// asking is a client that sends a request and ends its direction.
func asking() *layertest.Ear {
	e := &layertest.Ear{KeepOpen: true}
	e.OnMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("request")); _ = tr.WriteEOF() }
	return e
}

// TestServe: one call makes a proxy for each protocol, which resolves, connects
// and passes everything on, half-close included.
func TestServe(t *testing.T) {
	for _, p := range protocols {
		for _, faults := range []weirtest.Faults{{}, {CutRead: 0.5, CutWrite: 0.5, CutWire: 0.5, Defer: 0.2}} {
			t.Run(p.name, func(t *testing.T) {
				s := newServed(t, &proxy.Dialer{}, p.server(), weirtest.WithFaults(faults))
				e, c := answering(), asking()
				if _, err := s.target.Loop().Listen("tcp", ":80", func(weir.Transport) weir.Protocol { return e }); err != nil {
					t.Fatal(err)
				}
				dest := "target:80"
				if !p.names {
					dest = s.target.Addr(80)
				}
				s.client.Loop().Connect("tcp", "proxy:1080", layer.Client(c, p.client(dest)))
				s.Until("the end", func() bool { return c.Over() && e.Over() && len(s.done) == 1 })
				if string(e.Got) != "request" || string(c.Got) != "reply" || c.Err != nil || e.Err != nil || c.Failed != nil {
					t.Errorf("request %q, reply %q, ends %v, %v, failed %v", e.Got, c.Got, c.Err, e.Err, c.Failed)
				}
				if r := s.done[0]; !r.Connected || r.Bytes != [2]int64{7, 5} || len(s.failures) > 0 {
					t.Errorf("done %+v, failures %v", r, s.failures)
				}
			})
		}
	}
}

// TestServeRefuses: the client is told why, as far as its protocol can say, and
// so is Failed. Destinations that the proxy can reach only because of its place
// in the network are refused, and so is the proxy itself, however its address
// is written.
func TestServeRefuses(t *testing.T) {
	for _, c := range []struct {
		name, dest string
		access     *proxy.Access
		why        error // the error that Failed gets
		says       error // the client's error; nil: it gets none with a type
	}{
		{"nothing listens", "192.0.2.3:81", nil, syscall.ECONNREFUSED, syscall.ECONNREFUSED},
		{"no such name", "nowhere.example:80", nil, nil, nil},
		{"metadata", "169.254.169.254:80", nil, proxy.ErrNotAllowed, proxy.ErrNotAllowed},
		{"metadata, in IPv6", "[64:ff9b::a9fe:a9fe]:80", nil, proxy.ErrNotAllowed, proxy.ErrNotAllowed},
		{"link-local", "[fe80::1]:80", nil, proxy.ErrNotAllowed, proxy.ErrNotAllowed},
		{"loopback", "127.0.0.1:80", nil, proxy.ErrNotAllowed, proxy.ErrNotAllowed},
		{"private", "10.1.2.3:80", nil, proxy.ErrNotAllowed, proxy.ErrNotAllowed},
		{"denied", "192.0.2.3:80", &proxy.Access{Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.3/32")}}, proxy.ErrNotAllowed, proxy.ErrNotAllowed},
		{"a name that is denied", "target:80", &proxy.Access{Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.3/32")}}, proxy.ErrNotAllowed, proxy.ErrNotAllowed},
		{"itself", "127.0.0.1:1080", &proxy.Access{Private: true}, proxy.ErrNotAllowed, proxy.ErrNotAllowed},
		{"itself, unspecified", "0.0.0.0:1080", &proxy.Access{Private: true, Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/32")}}, proxy.ErrNotAllowed, proxy.ErrNotAllowed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServed(t, &proxy.Dialer{Access: c.access}, proxy.SOCKSServer(proxy.AnyVersion))
			reached := false
			for _, h := range []*weirtest.SimHost{s.target, s.proxy} {
				if _, err := h.Loop().Listen("tcp", ":80", func(weir.Transport) weir.Protocol { reached = true; return nil }); err != nil {
					t.Fatal(err)
				}
			}
			e := &layertest.Ear{}
			s.client.Loop().Connect("tcp", "proxy:1080", layer.Client(e, proxy.SOCKS5(c.dest)))
			s.Until("the refusal", func() bool { return e.Over() && len(s.failures) == 1 && s.proxy.Loop().Connections() == 0 })
			var refused *proxy.Error
			if reached || e.Made > 0 || !errors.As(e.Failed, &refused) || c.says != nil && !errors.Is(e.Failed, c.says) {
				t.Errorf("reached %v, made %d, the client heard %v", reached, e.Made, e.Failed)
			}
			var connect *weir.ConnectError
			if !errors.As(s.failures[0], &connect) || c.why != nil && !errors.Is(s.failures[0], c.why) || len(s.done) > 0 {
				t.Errorf("failed with %v, done %v", s.failures[0], s.done)
			}
		})
	}
}

// TestServeNoBind: a proxy that only dials refuses BIND.
func TestServeNoBind(t *testing.T) {
	s := newServed(t, &proxy.Dialer{}, proxy.SOCKSServer(proxy.AnyVersion, proxy.WithBind()))
	e := &layertest.Ear{}
	s.client.Loop().Connect("tcp", "proxy:1080", layer.Client(e, proxy.SOCKS5("192.0.2.3:80", proxy.WithBindRequest(nil))))
	s.Until("the refusal", func() bool { return e.Over() && len(s.failures) == 1 && s.proxy.Loop().Connections() == 0 })
	if !errors.Is(e.Failed, proxy.ErrCommand) || !errors.Is(s.failures[0], proxy.ErrCommand) || len(s.done) > 0 {
		t.Errorf("failed with %v and %v, done %v", e.Failed, s.failures, s.done)
	}
}

// TestServeBind: if BIND is served, the client is told where its peer is
// expected, and who came: the host that it named, which the rules allow, and no
// other.
func TestServeBind(t *testing.T) {
	only := &proxy.Access{Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.3/32")}}
	for _, c := range []struct {
		name, dest string
		access     *proxy.Access
		comes      string // the host that connects: "target", "stranger"; "": none does
		want       error  // the client's error; nil: it gets its peer or, if none connects, any refusal
	}{
		{"the host", "192.0.2.3:20", nil, "target", nil},
		{"a name", "target:20", nil, "target", nil},
		{"whoever may", "0.0.0.0:0", nil, "target", nil},
		{"another host", "192.0.2.3:20", nil, "stranger", syscall.ETIMEDOUT},
		{"no one", "192.0.2.3:20", nil, "", syscall.ETIMEDOUT},
		{"a host that is denied", "192.0.2.3:20", only, "target", proxy.ErrNotAllowed},
		{"a name that is denied", "target:20", only, "target", proxy.ErrNotAllowed},
		{"whoever may, and one that may not", "0.0.0.0:0", only, "target", syscall.ETIMEDOUT},
		{"link-local", "169.254.1.1:20", nil, "", proxy.ErrNotAllowed},
		{"no such name", "nowhere.example:20", nil, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &proxy.Dialer{Access: c.access}
			var waits, turned []string
			d.Waits = func(_ *proxy.Request, at net.Addr) { waits = append(waits, at.String()) }
			d.Turned = func(_ *proxy.Request, peer net.Addr, _ error) { turned = append(turned, peer.String()) }
			s := newServed(t, d, proxy.SOCKSServer(proxy.AnyVersion, proxy.WithBind()))
			d.Bind = s.proxy.Addrs()[0]
			hosts := map[string]*weirtest.SimHost{"target": s.target, "stranger": s.Host("stranger", netip.AddrFrom4([4]byte{192, 0, 2, 4}))}
			peer, e := &layertest.Ear{}, &layertest.Ear{KeepOpen: true}
			peer.OnMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("from afar")); _ = tr.WriteEOF() }
			e.OnEnd = func() { _, _ = e.Tr.Write([]byte("reply")); _ = e.Tr.Close() }
			bound := func(at net.Addr) {
				if len(waits) != 1 || waits[0] != at.String() {
					t.Errorf("the client heard of %v, Waits of %v", at, waits)
				}
				if h := hosts[c.comes]; h != nil {
					h.Loop().Connect("tcp", at.String(), peer)
				}
			}
			s.client.Loop().Connect("tcp", "proxy:1080", layer.Client(e, proxy.SOCKS5(c.dest, proxy.WithBindRequest(bound), proxy.WithTimeout(2*time.Minute))))
			s.Until("the end", func() bool {
				return e.Over() && len(s.failures)+len(s.done) == 1 && s.proxy.Loop().Connections() == 0
			})
			if n := len(s.proxy.Loop().ListenAddrs()); n != 1 {
				t.Errorf("%d listeners are left, want that of the proxy", n)
			}
			if c.want == nil && c.comes != "" {
				s.Until("the peer's end", peer.Over)
				if e.Made != 1 || string(e.Got) != "from afar" || string(peer.Got) != "reply" || e.Tr.RemoteAddr().String() != peer.Tr.LocalAddr().String() || len(turned) > 0 {
					t.Errorf("made %d, got %q from %v, the peer %q, turned away %v, failed %v", e.Made, e.Got, e.Tr, peer.Got, turned, e.Failed)
				}
				return
			}
			var refused *proxy.Error
			if e.Made > 0 || len(peer.Got) > 0 || !errors.As(e.Failed, &refused) || c.want != nil && !errors.Is(e.Failed, c.want) || len(s.failures) != 1 {
				t.Errorf("made %d, the peer got %q, failed %v and %v", e.Made, peer.Got, e.Failed, s.failures)
			}
			if came := c.comes != "" && len(waits) > 0; came != (len(turned) == 1) {
				t.Errorf("waits %v, turned away: %v", waits, turned)
			}
		})
	}
}

// TestServeBindGone: when a client has gone its port is closed, at once if it
// was reset.
func TestServeBindGone(t *testing.T) {
	d := &proxy.Dialer{}
	s := newServed(t, d, proxy.SOCKSServer(proxy.AnyVersion, proxy.WithBind()))
	d.Bind = s.proxy.Addrs()[0]
	e := &layertest.Ear{}
	e.OnMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("\x04\x02\x00\x50\xc0\x00\x02\x03\x00")) }
	s.client.Loop().Connect("tcp", "proxy:1080", e)
	listeners := func(n int) func() bool {
		return func() bool { return len(s.proxy.Loop().ListenAddrs()) == n }
	}
	s.Until("the port", listeners(2))
	e.Tr.Abort()
	s.Until("the port to be closed", listeners(1))
	if s.Now() > time.Second || len(s.done) != 1 || s.done[0].Connected {
		t.Errorf("after %v: %+v, %v", s.Now(), s.done, s.failures)
	}
}

// TestServeTimeout: a destination that does not answer is given up after some
// time, and at once if its client has gone.
func TestServeTimeout(t *testing.T) {
	start := func(t *testing.T, d *proxy.Dialer) (*served, *layertest.Ear) {
		s := newServed(t, d, proxy.SOCKSServer(proxy.AnyVersion))
		s.Partition(s.proxy, s.target)
		e := &layertest.Ear{}
		s.client.Loop().Connect("tcp", "proxy:1080", layer.Client(e, proxy.SOCKS5(s.target.Addr(80))))
		return s, e
	}
	for _, c := range []struct {
		timeout, want time.Duration
	}{{0, 30 * time.Second}, {2 * time.Second, 2 * time.Second}} {
		t.Run(fmt.Sprint(c.timeout), func(t *testing.T) {
			s, e := start(t, &proxy.Dialer{Timeout: c.timeout})
			s.Until("the refusal", func() bool { return e.Over() && len(s.failures) == 1 })
			if now := s.Now(); now < c.want || now > c.want+time.Second {
				t.Errorf("given up after %v, want %v", now, c.want)
			}
		})
	}
	for _, reset := range []bool{true, false} {
		t.Run(fmt.Sprint("the client has gone, by a reset: ", reset), func(t *testing.T) {
			s := newServed(t, &proxy.Dialer{}, proxy.SOCKSServer(proxy.AnyVersion))
			s.Partition(s.proxy, s.target)
			e := &layertest.Ear{}
			e.OnMade = func(tr weir.Transport) {
				_, _ = tr.Write([]byte("\x04\x01\x00\x50\xc0\x00\x02\x03\x00"))
				tr.Loop().After(time.Second, func() {
					if reset {
						tr.Abort()
						return
					}
					_ = tr.Close()
				})
			}
			s.client.Loop().Connect("tcp", "proxy:1080", e)
			s.Until("nothing to be left", func() bool { return len(s.done) == 1 && s.proxy.Loop().Connections() == 0 })
			if s.Now() > 7*time.Second || s.done[0].Connected || len(s.failures) > 0 {
				t.Errorf("after %v: %+v, %v", s.Now(), s.done[0], s.failures)
			}
		})
	}
}

// TestServeBackends: the same works on each backend, with real sockets and the
// loop's own resolver.
func TestServeBackends(t *testing.T) {
	for _, name := range weir.Backends() {
		for _, p := range protocols {
			t.Run(name+"/"+p.name, func(t *testing.T) {
				l, err := weir.NewLoop(weir.WithBackendName(name))
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := l.Close(); err != nil {
						t.Error(err)
					}
				}()
				e, c := answering(), asking()
				target, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return e })
				if err != nil {
					t.Fatal(err)
				}
				// The destination is a listener of this loop, which is refused
				// unless Own says otherwise.
				var own []net.Addr
				access := &proxy.Access{Private: true, Own: func() []net.Addr { return own }}
				ln, err := l.Listen("tcp", "127.0.0.1:0", proxy.Serve(&proxy.Dialer{Access: access}, p.server()))
				if err != nil {
					t.Fatal(err)
				}
				own = []net.Addr{ln.Addr()}
				port := target.Addr().(*net.TCPAddr).Port
				dest := fmt.Sprint("127.0.0.1:", port)
				if p.names {
					dest = fmt.Sprint("localhost:", port)
				}
				check := func() {
					if c.Over() && e.Over() {
						l.Stop()
					}
				}
				c.OnLost, e.OnLost = check, check
				l.Connect("tcp", ln.Addr().String(), layer.Client(c, p.client(dest)))
				l.After(patience, func() { t.Error("it takes too long"); l.Stop() })
				if err := l.Run(); err != nil {
					t.Fatal(err)
				}
				if string(e.Got) != "request" || string(c.Got) != "reply" || c.Err != nil || e.Err != nil {
					t.Errorf("request %q, reply %q, ends %v, %v, failed %v", e.Got, c.Got, c.Err, e.Err, c.Failed)
				}
			})
		}
	}
}

// patience bounds how long a test waits.
const patience = 2 * time.Minute

// TestServeNoRequest: without a server layer, the loop is told what is missing.
func TestServeNoRequest(t *testing.T) {
	s := newProxied(t)
	c := &layertest.Ear{}
	if _, err := s.sl.Listen("tcp", ":7", (&proxy.Dialer{}).Join); err != nil {
		t.Fatal(err)
	}
	s.cl.Connect("tcp", s.server.Addr(7), c)
	s.Until("the report", func() bool { return len(s.Failures) == 1 && c.Over() })
	s.Failures = nil
}
