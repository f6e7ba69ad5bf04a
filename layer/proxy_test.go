package layer_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

func TestProxyStreams(t *testing.T) {
	users := layer.NewUsers(map[string]string{"u": "p"})
	t.Run("connect", func(t *testing.T) {
		suite(t, []layer.Layer{layer.ConnectServer(layer.WithUsers(users))},
			[]layer.Layer{layer.Connect("name.example:80", layer.WithProxyUser("u", "p"))})
	})
	src := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:1"))
	any := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	t.Run("proxy v1", func(t *testing.T) {
		suite(t, []layer.Layer{layer.ProxyIn(any, 0)}, []layer.Layer{layer.ProxyOut(layer.ProxyV1, src, src)})
	})
	t.Run("proxy v2", func(t *testing.T) {
		suite(t, []layer.Layer{layer.ProxyIn(any, 0)}, []layer.Layer{layer.ProxyOut(layer.ProxyV2, src, src)})
	})
	t.Run("socks5 over connect over socks4a", func(t *testing.T) {
		suite(t, []layer.Layer{layer.SOCKSServer(layer.Version4a), layer.ConnectServer(), layer.SOCKSServer(layer.Version5)},
			[]layer.Layer{layer.SOCKS4a("one.example:1"), layer.Connect("two.example:2"), layer.SOCKS5("three.example:3")})
	})
}

// noNames is the resolver of those who must resolve nothing.
type noNames struct{ t *testing.T }

func (r noNames) LookupNetIP(_ *weir.Loop, _, host string, _ func([]netip.Addr, error)) func() {
	r.t.Errorf("%q was resolved here", host)
	return func() {}
}

// proxied is a client and a proxy's server in a simulated world, whose loops
// resolve nothing.
type proxied struct {
	*weirtest.Sim
	server, client *weirtest.SimHost
	sl, cl         *weir.Loop
}

func newProxied(t *testing.T, opts ...weirtest.SimOption) *proxied {
	s := weirtest.NewSim(t, 5, opts...)
	p := &proxied{Sim: s, server: s.Host("server"), client: s.Host("client")}
	p.sl = p.server.NewLoop(weir.WithResolver(noNames{t}), weir.WithErrorHandler(func(err error) { s.Failures = append(s.Failures, err) }))
	p.cl = p.client.NewLoop(weir.WithResolver(noNames{t}))
	return p
}

// talk connects c through client layers to what f makes above server layers.
func (p *proxied) talk(t *testing.T, f weir.Factory, c weir.Protocol, server, client layer.Layer) *weir.Listener {
	t.Helper()
	ln, err := p.sl.Listen("tcp", ":0", layer.Server(f, server))
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
	p.cl.Connect("tcp", p.server.Addr(port), layer.Client(c, client))
	return ln
}

// protocols are the proxies: how to serve and to ask, and what they can say.
var protocols = []struct {
	name   string
	server func(...layer.ServeOption) layer.Layer
	client func(string, ...layer.ProxyOption) layer.Layer
	names  bool
	auth   bool
	says   func(error) error // what the client can know of the reason of a refusal
}{
	{"socks5", func(o ...layer.ServeOption) layer.Layer { return layer.SOCKSServer(layer.Version5, o...) }, layer.SOCKS5, true, true, func(err error) error { return err }},
	{"socks4a", func(o ...layer.ServeOption) layer.Layer { return layer.SOCKSServer(layer.Version4a, o...) }, layer.SOCKS4a, true, false, func(error) error { return nil }},
	{"socks4", func(o ...layer.ServeOption) layer.Layer { return layer.SOCKSServer(layer.Version4, o...) }, layer.SOCKS4, false, false, func(error) error { return nil }},
	{"connect", layer.ConnectServer, layer.Connect, true, true, func(err error) error {
		if errors.Is(err, layer.ErrNotAllowed) || errors.Is(err, syscall.ETIMEDOUT) {
			return err
		}
		return nil
	}},
}

// TestProxyRequest: the destination reaches the server as it was named, nobody
// resolves it, what the client sends early waits for the answer, and the reply
// after a half-close arrives (R41, behaviour 27).
func TestProxyRequest(t *testing.T) {
	for _, p := range protocols {
		for _, faults := range []weirtest.Faults{{}, {CutRead: 0.9, CutWrite: 0.5, CutWire: 0.9}} {
			t.Run(p.name, func(t *testing.T) {
				w := newProxied(t, weirtest.WithFaults(faults))
				dest := "192.0.2.9:81"
				if p.names {
					dest = strings.Repeat("a", 200) + ".example:81"
				}
				c, s := &ear{keepOpen: true}, &ear{keepOpen: true}
				var r *layer.Request
				s.onMade = func(tr weir.Transport) {
					r = layer.RequestOf(tr)
					r.Hold()
					tr.PauseReading()
					tr.Loop().After(time.Second, func() {
						if len(s.got) > 0 || c.made > 0 {
							t.Error("something passed before the answer")
						}
						r.Accept(net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.7:5")))
						tr.ResumeReading()
					})
				}
				s.onEnd = func() { _, _ = s.tr.Write([]byte("reply")); _ = s.tr.Close() }
				c.onMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("request")); _ = tr.WriteEOF() }
				w.talk(t, func(weir.Transport) weir.Protocol { return s }, c, p.server(), p.client(dest))
				w.Until("the end", func() bool { return s.over() && c.over() })
				if r.Destination() != dest || string(s.got) != "request" || string(c.got) != "reply" || c.err != nil || s.err != nil {
					t.Errorf("asked for %q, request %q, reply %q, ends %v, %v", r.Destination(), s.got, c.got, c.err, s.err)
				}
				if c.tr.RemoteAddr().String() != dest {
					t.Errorf("the client's peer is %v", c.tr.RemoteAddr())
				}
			})
		}
	}
}

// TestProxyRefusal: the reason of a refusal reaches the client typed, as far as
// the protocol can say it; there never was a connection (R43).
func TestProxyRefusal(t *testing.T) {
	for _, p := range protocols {
		for _, why := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ETIMEDOUT, layer.ErrNotAllowed, errors.New("x")} {
			t.Run(fmt.Sprint(p.name, " ", why), func(t *testing.T) {
				w := newProxied(t)
				c, s := &ear{}, &ear{}
				s.onMade = func(tr weir.Transport) {
					r := layer.RequestOf(tr)
					r.Hold()
					tr.Loop().Soon(func() { r.Refuse(fmt.Errorf("dial: %w", why)); tr.Abort() })
				}
				w.talk(t, func(weir.Transport) weir.Protocol { return s }, c, p.server(), p.client("192.0.2.1:1"))
				w.Until("the refusal", func() bool { return c.over() && s.over() })
				var refused *layer.ProxyError
				var attempt *weir.AttemptError
				if c.made != 0 || !errors.As(c.failed, &refused) || !errors.As(c.failed, &attempt) || attempt.Stage != weir.StageProxy || refused.Destination != "192.0.2.1:1" {
					t.Fatalf("made %d, failed %v", c.made, c.failed)
				}
				if want := p.says(why); want != nil && want.Error() != "x" && !errors.Is(c.failed, want) {
					t.Errorf("%v is not %v", c.failed, want)
				}
			})
		}
	}
}

// TestProxyAuthentication: only who has the password gets in, with lengths of 1
// and 255; before that no protocol is made, so nothing is dialled or relayed.
func TestProxyAuthentication(t *testing.T) {
	long := strings.Repeat("x", 255)
	users := layer.NewUsers(map[string]string{"u": "p", long: long, "empty": ""})
	if users.Check("empty", "") || layer.NewUsers(map[string]string{"": "p"}).Check("", "p") {
		t.Error("nothing is a secret")
	}
	for _, p := range protocols {
		for _, try := range []struct {
			user, password string
			ok             bool
		}{{"u", "p", true}, {long, long, true}, {"u", "q", false}, {"u", long, false}, {long, "p", false}, {"nobody", "p", false}, {"nobody", "", false}, {"empty", "", false}, {"empty", "p", false}} {
			if p.name == "socks5" && try.password == "" {
				continue // its client cannot say that: see TestProxyMalformed
			}
			t.Run(fmt.Sprintf("%s %.5s %.5s", p.name, try.user, try.password), func(t *testing.T) {
				w := newProxied(t)
				c, s := &ear{}, &ear{}
				made := 0
				password := try.password
				if !p.auth {
					password = ""
				}
				w.talk(t, func(tr weir.Transport) weir.Protocol { made++; _ = layer.RequestOf(tr); return s }, c,
					p.server(layer.WithUsers(users)), p.client("192.0.2.1:1", layer.WithProxyUser(try.user, password)))
				if try.ok && p.auth {
					w.Until("the connection", func() bool { return c.made > 0 && s.made > 0 })
					if u := layer.RequestOf(s.tr).User(); u != try.user {
						t.Errorf("the user is %q", u)
					}
					return
				}
				w.Until("the refusal", c.over)
				if made != 0 || !errors.Is(c.failed, layer.ErrProxyAuth) || !errors.Is(c.failed, fs.ErrPermission) {
					t.Errorf("made %d, failed %v", made, c.failed)
				}
			})
		}
	}
}

// TestProxyNothingFirst: no order of messages gets past authentication
// (RELIABILITY.md, SOCKS and CONNECT). A server that was promised a password
// makes no protocol for any of these.
func TestProxyNothingFirst(t *testing.T) {
	users := layer.NewUsers(map[string]string{"u": "p", "v": ""})
	request := "\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"
	good := "\x01\x01u\x01p"
	messages := []string{
		"\x05\x01\x00", "\x05\x01\x02", "\x05\x02\x00\x02", "\x01\x01u\x01q", "\x01\x00\x00", "\x01\x01v\x00", request,
		"\x04\x01\x00\x50\x7f\x00\x00\x01u\x00", "CONNECT a:1 HTTP/1.1\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic dTpx\r\n\r\n", good,
	}
	for _, first := range messages {
		for _, second := range messages {
			for _, third := range messages {
				all := first + second + third
				if strings.HasSuffix(first, "\x02") && second == good && third == request {
					continue // this is how it is meant
				}
				for _, s := range []layer.Layer{layer.SOCKSServer(layer.AnyVersion, layer.WithUsers(users)), layer.ConnectServer(layer.WithUsers(users))} {
					rec := weirtest.NewRecorder(t)
					rec.SetErrorHandler(func(error) {})
					made := false
					rec.Connect(s(layer.Above{Make: func(weir.Transport) weir.Protocol { made = true; return nil }}).Make(rec))
					weirtest.Feed(rec, []byte(all), weirtest.ByteByByte())
					if made {
						t.Fatalf("%q got through", all)
					}
				}
			}
		}
	}
}

// TestProxyBind: the server says where it waits, then who came.
func TestProxyBind(t *testing.T) {
	for _, p := range protocols[:3] {
		t.Run(p.name, func(t *testing.T) {
			w := newProxied(t)
			c, s := &ear{}, &ear{}
			waits, came := "198.51.100.7:5", "203.0.113.9:6"
			s.onMade = func(tr weir.Transport) {
				r := layer.RequestOf(tr)
				if r.Command() != layer.ProxyBind {
					t.Errorf("asked to %v", r.Command())
				}
				r.Hold()
				r.Bound(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(waits)))
				tr.Loop().After(time.Second, func() {
					r.Accept(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(came)))
					_, _ = tr.Write([]byte("hello"))
					_ = tr.Close()
				})
			}
			bound := ""
			w.talk(t, func(weir.Transport) weir.Protocol { return s }, c, p.server(layer.WithBind()),
				p.client("192.0.2.1:1", layer.WithProxyBind(func(a net.Addr) { bound = a.String() })))
			w.Until("the end", func() bool { return c.over() && s.over() })
			if bound != waits || c.tr.RemoteAddr().String() != came || string(c.got) != "hello" {
				t.Errorf("waits at %s for %v, which says %q", bound, c.tr.RemoteAddr(), c.got)
			}
		})
		t.Run(p.name+" not served", func(t *testing.T) {
			w := newProxied(t)
			c := &ear{}
			w.talk(t, func(weir.Transport) weir.Protocol { t.Error("made"); return nil }, c, p.server(), p.client("192.0.2.1:1", layer.WithProxyBind(nil)))
			w.Until("the refusal", c.over)
			if p.name == "socks5" && !errors.Is(c.failed, layer.ErrProxyCommand) {
				t.Errorf("failed %v", c.failed)
			}
		})
	}
}

// TestProxyMalformed: what no proxy can do fails before anything is sent, or is
// answered, and a peer that says nothing is waited for so long and no longer.
func TestProxyMalformed(t *testing.T) {
	for _, bad := range []struct {
		name string
		l    layer.Layer
	}{
		{"empty name", layer.SOCKS5(":1")},
		{"name of 256", layer.SOCKS5(strings.Repeat("a", 256) + ":1")},
		{"lines in a name", layer.Connect("a\r\nX: y:1")},
		{"NUL in a name", layer.SOCKS4a("a\x00b:1")},
		{"a name in SOCKS4", layer.SOCKS4("localhost:1")},
		{"IPv6 in SOCKS4", layer.SOCKS4a("[::1]:1")},
		{"a scope", layer.SOCKS5("[fe80::1%eth0]:1")},
		{"no port", layer.Connect("a")},
		{"empty user", layer.SOCKS5("a:1", layer.WithProxyUser("", "p"))},
		{"empty password", layer.SOCKS5("a:1", layer.WithProxyUser("u", ""))},
		{"user of 256", layer.SOCKS5("a:1", layer.WithProxyUser(strings.Repeat("u", 256), "p"))},
		{"colon in a user", layer.Connect("a:1", layer.WithProxyUser("a:b", "p"))},
		{"a silent proxy", layer.SOCKS5("a:1", layer.WithProxyTimeout(time.Second))},
	} {
		t.Run(bad.name, func(t *testing.T) {
			w := newProxied(t)
			c, s := &ear{}, &ear{}
			w.talk(t, func(weir.Transport) weir.Protocol { return s }, c, plain, bad.l)
			w.Until("the failure", func() bool { return c.over() && s.over() })
			if c.made != 0 || c.failed == nil || bad.name != "a silent proxy" && len(s.got) > 0 {
				t.Errorf("made %d, failed %v, sent %q", c.made, c.failed, s.got)
			}
			if bad.name == "a silent proxy" && !errors.Is(c.failed, layer.ErrTimeout) {
				t.Errorf("failed %v", c.failed)
			}
		})
	}
}
