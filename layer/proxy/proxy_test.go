package proxy_test

import (
	"encoding/base64"
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
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/weirtest"
)

func TestStreams(t *testing.T) {
	users := proxy.NewUsers(map[string]string{"u": "p"})
	t.Run("connect", func(t *testing.T) {
		layertest.Suite(t, []layer.Layer{proxy.ConnectServer(proxy.WithUsers(users))},
			[]layer.Layer{proxy.Connect("name.example:80", proxy.WithCredentials("u", "p"))})
	})
	src := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:1"))
	any := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	t.Run("proxy v1", func(t *testing.T) {
		layertest.Suite(t, []layer.Layer{proxy.HeaderIn(any, 0)}, []layer.Layer{proxy.HeaderOut(proxy.HeaderV1, src, src)})
	})
	t.Run("proxy v2", func(t *testing.T) {
		layertest.Suite(t, []layer.Layer{proxy.HeaderIn(any, 0)}, []layer.Layer{proxy.HeaderOut(proxy.HeaderV2, src, src)})
	})
	t.Run("socks5 over connect over socks4a", func(t *testing.T) {
		layertest.Suite(t, []layer.Layer{proxy.SOCKSServer(proxy.Version4a), proxy.ConnectServer(), proxy.SOCKSServer(proxy.Version5)},
			[]layer.Layer{proxy.SOCKS4a("one.example:1"), proxy.Connect("two.example:2"), proxy.SOCKS5("three.example:3")})
	})
}

// noNames is the resolver of loops that must resolve nothing.
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

// protocols are the proxy protocols: how to serve and to ask, and what they can
// express.
var protocols = []struct {
	name   string
	server func(...proxy.ServerOption) layer.Layer
	client func(string, ...proxy.ClientOption) layer.Layer
	names  bool
	auth   bool
	says   func(error) error // what the client can know about the reason for a refusal
}{
	{"socks5", func(o ...proxy.ServerOption) layer.Layer { return proxy.SOCKSServer(proxy.Version5, o...) }, proxy.SOCKS5, true, true, func(err error) error { return err }},
	{"socks4a", func(o ...proxy.ServerOption) layer.Layer { return proxy.SOCKSServer(proxy.Version4a, o...) }, proxy.SOCKS4a, true, false, func(error) error { return nil }},
	{"socks4", func(o ...proxy.ServerOption) layer.Layer { return proxy.SOCKSServer(proxy.Version4, o...) }, proxy.SOCKS4, false, false, func(error) error { return nil }},
	{"connect", proxy.ConnectServer, proxy.Connect, true, true, func(err error) error {
		if errors.Is(err, proxy.ErrNotAllowed) || errors.Is(err, syscall.ETIMEDOUT) {
			return err
		}
		return nil
	}},
}

// TestRequest: the destination reaches the server as it was named, unresolved;
// what the client sends early waits for the answer, and the reply after a
// half-close arrives (R41, behaviour 27).
func TestRequest(t *testing.T) {
	for _, p := range protocols {
		for _, faults := range []weirtest.Faults{{}, {CutRead: 0.9, CutWrite: 0.5, CutWire: 0.9}} {
			t.Run(p.name, func(t *testing.T) {
				w := newProxied(t, weirtest.WithFaults(faults))
				dest := "192.0.2.9:81"
				if p.names {
					dest = strings.Repeat("a", 200) + ".example:81"
				}
				c, s := &layertest.Ear{KeepOpen: true}, &layertest.Ear{KeepOpen: true}
				var r *proxy.Request
				s.OnMade = func(tr weir.Transport) {
					r = proxy.RequestOf(tr)
					r.Hold()
					tr.PauseReading()
					tr.Loop().After(time.Second, func() {
						if len(s.Got) > 0 || c.Made > 0 {
							t.Error("something passed before the answer")
						}
						r.Accept(net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.7:5")))
						tr.ResumeReading()
					})
				}
				s.OnEnd = func() { _, _ = s.Tr.Write([]byte("reply")); _ = s.Tr.Close() }
				c.OnMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("request")); _ = tr.WriteEOF() }
				w.talk(t, func(weir.Transport) weir.Protocol { return s }, c, p.server(), p.client(dest))
				w.Until("the end", func() bool { return s.Over() && c.Over() })
				if r.Destination() != dest || string(s.Got) != "request" || string(c.Got) != "reply" || c.Err != nil || s.Err != nil {
					t.Errorf("asked for %q, request %q, reply %q, ends %v, %v", r.Destination(), s.Got, c.Got, c.Err, s.Err)
				}
				if c.Tr.RemoteAddr().String() != dest {
					t.Errorf("the client's peer is %v", c.Tr.RemoteAddr())
				}
			})
		}
	}
}

// TestRefusal: the reason for a refusal reaches the client as a typed error, as
// far as the protocol can express it; there never was a connection (R43).
func TestRefusal(t *testing.T) {
	for _, p := range protocols {
		for _, why := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ETIMEDOUT, proxy.ErrNotAllowed, errors.New("x")} {
			t.Run(fmt.Sprint(p.name, " ", why), func(t *testing.T) {
				w := newProxied(t)
				c, s := &layertest.Ear{}, &layertest.Ear{}
				s.OnMade = func(tr weir.Transport) {
					r := proxy.RequestOf(tr)
					r.Hold()
					tr.Loop().Soon(func() { r.Refuse(fmt.Errorf("dial: %w", why)); tr.Abort() })
				}
				w.talk(t, func(weir.Transport) weir.Protocol { return s }, c, p.server(), p.client("192.0.2.1:1"))
				w.Until("the refusal", func() bool { return c.Over() && s.Over() })
				var refused *proxy.Error
				var attempt *weir.AttemptError
				if c.Made != 0 || !errors.As(c.Failed, &refused) || !errors.As(c.Failed, &attempt) || attempt.Stage != weir.StageProxy || refused.Destination != "192.0.2.1:1" {
					t.Fatalf("made %d, failed %v", c.Made, c.Failed)
				}
				if want := p.says(why); want != nil && want.Error() != "x" && !errors.Is(c.Failed, want) {
					t.Errorf("%v is not %v", c.Failed, want)
				}
			})
		}
	}
}

// TestAuthentication: only a client with the password gets in, with lengths of
// 1 and 255; before that no protocol is made, so nothing is dialed or relayed.
func TestAuthentication(t *testing.T) {
	long := strings.Repeat("x", 255)
	users := proxy.NewUsers(map[string]string{"u": "p", long: long, "empty": ""})
	if users.Check("empty", "") || proxy.NewUsers(map[string]string{"": "p"}).Check("", "p") {
		t.Error("nothing is a secret")
	}
	for _, p := range protocols {
		for _, try := range []struct {
			user, password string
			ok             bool
		}{{"u", "p", true}, {long, long, true}, {"u", "q", false}, {"u", long, false}, {long, "p", false}, {"nobody", "p", false}, {"nobody", "", false}, {"empty", "", false}, {"empty", "p", false}} {
			if p.name == "socks5" && try.password == "" {
				continue // its client cannot express that: see TestMalformed
			}
			t.Run(fmt.Sprintf("%s %.5s %.5s", p.name, try.user, try.password), func(t *testing.T) {
				w := newProxied(t)
				c, s := &layertest.Ear{}, &layertest.Ear{}
				made := 0
				password := try.password
				if !p.auth {
					password = ""
				}
				w.talk(t, func(tr weir.Transport) weir.Protocol { made++; _ = proxy.RequestOf(tr); return s }, c,
					p.server(proxy.WithUsers(users)), p.client("192.0.2.1:1", proxy.WithCredentials(try.user, password)))
				if try.ok && p.auth {
					w.Until("the connection", func() bool { return c.Made > 0 && s.Made > 0 })
					if u := proxy.RequestOf(s.Tr).User(); u != try.user {
						t.Errorf("the user is %q", u)
					}
					return
				}
				w.Until("the refusal", c.Over)
				if made != 0 || !errors.Is(c.Failed, proxy.ErrAuth) || !errors.Is(c.Failed, fs.ErrPermission) {
					t.Errorf("made %d, failed %v", made, c.Failed)
				}
				// R72: the failure names the user.
				var e *proxy.Error
				if !errors.As(c.Failed, &e) || e.User != try.user || !strings.Contains(c.Failed.Error(), fmt.Sprintf("%q", try.user)) {
					t.Errorf("the user is not named: %v", c.Failed)
				}
			})
		}
	}
}

// TestRefusalHidesPassword: a proxy that repeats what it was sent puts no password into
// the failure (R72).
func TestRefusalHidesPassword(t *testing.T) {
	const user, password = "alice", "correct horse"
	sent := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	body := "you are " + user + " with " + password + ", " + sent
	w := newProxied(t)
	p, s := &layertest.Ear{}, &layertest.Ear{}
	w.talk(t, func(weir.Transport) weir.Protocol { return s }, p, layertest.Plain, proxy.Connect("a:1", proxy.WithCredentials(user, password)))
	w.Until("the request", func() bool { return strings.HasSuffix(string(s.Got), "\r\n\r\n") })
	if !strings.Contains(string(s.Got), sent) {
		t.Fatalf("the request is %q", s.Got)
	}
	fmt.Fprintf(s.Tr, "HTTP/1.1 407 not %s\r\nLocation: /%s\r\nContent-Length: %d\r\n\r\n%s", password, sent, len(body), body)
	w.Until("the failure", p.Over)
	var e *proxy.Error
	if !errors.As(p.Failed, &e) || e.User != user {
		t.Fatalf("failed with %v", p.Failed)
	}
	for _, text := range []string{p.Failed.Error(), fmt.Sprintf("%+v", e), e.Text, e.Body, e.Location} {
		if strings.Contains(text, password) || strings.Contains(text, sent) {
			t.Errorf("the password is in %q", text)
		}
	}
	if e.Body != "you are alice with ***, ***" || e.Text != "not ***" {
		t.Errorf("the proxy said %q, %q", e.Text, e.Body)
	}
}

// TestRefusalCutInPassword: a text that ends in the middle of the password, or of what
// was sent, has no part of it (R72).
func TestRefusalCutInPassword(t *testing.T) {
	const user, password = "alice", "correct p\u00e4ssword"
	sent := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	for _, secret := range []string{password, sent} {
		for n := 4; n < len(secret); n++ {
			filler := strings.Repeat("-", 256-n)
			w := newProxied(t)
			p, s := &layertest.Ear{}, &layertest.Ear{}
			w.talk(t, func(weir.Transport) weir.Protocol { return s }, p, layertest.Plain, proxy.Connect("a:1", proxy.WithCredentials(user, password)))
			w.Until("the request", func() bool { return strings.HasSuffix(string(s.Got), "\r\n\r\n") })
			fmt.Fprintf(s.Tr, "HTTP/1.1 407 %s%s\r\nContent-Length: 1000\r\n\r\n%s%s", filler[:100-n], secret, filler, secret)
			w.Until("the failure", p.Over)
			var e *proxy.Error
			if !errors.As(p.Failed, &e) {
				t.Fatalf("failed with %v", p.Failed)
			}
			if want := filler + "***"; e.Body != want {
				t.Errorf("%d bytes of %q: the body is %q", n, secret, e.Body)
			}
			if !strings.HasSuffix(e.Text, "-***") {
				t.Errorf("%d bytes of %q: the text is %q", n, secret, e.Text)
			}
		}
	}
}

// TestNothingFirst: no order of messages gets past authentication
// (docs/promises.md, SOCKS and CONNECT). A server that expects a password makes
// no protocol for any of these.
func TestNothingFirst(t *testing.T) {
	users := proxy.NewUsers(map[string]string{"u": "p", "v": ""})
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
					continue // this is the proper order
				}
				for _, s := range []layer.Layer{proxy.SOCKSServer(proxy.AnyVersion, proxy.WithUsers(users)), proxy.ConnectServer(proxy.WithUsers(users))} {
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

// TestBind: the server says where it waits, then who came.
func TestBind(t *testing.T) {
	for _, p := range protocols[:3] {
		t.Run(p.name, func(t *testing.T) {
			w := newProxied(t)
			c, s := &layertest.Ear{}, &layertest.Ear{}
			waits, came := "198.51.100.7:5", "203.0.113.9:6"
			s.OnMade = func(tr weir.Transport) {
				r := proxy.RequestOf(tr)
				if r.Command() != proxy.CommandBind {
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
			w.talk(t, func(weir.Transport) weir.Protocol { return s }, c, p.server(proxy.WithBind()),
				p.client("192.0.2.1:1", proxy.WithBindRequest(func(a net.Addr) { bound = a.String() })))
			w.Until("the end", func() bool { return c.Over() && s.Over() })
			if bound != waits || c.Tr.RemoteAddr().String() != came || string(c.Got) != "hello" {
				t.Errorf("waits at %s for %v, which says %q", bound, c.Tr.RemoteAddr(), c.Got)
			}
		})
		t.Run(p.name+" not served", func(t *testing.T) {
			w := newProxied(t)
			c := &layertest.Ear{}
			w.talk(t, func(weir.Transport) weir.Protocol { t.Error("made"); return nil }, c, p.server(), p.client("192.0.2.1:1", proxy.WithBindRequest(nil)))
			w.Until("the refusal", c.Over)
			if p.name == "socks5" && !errors.Is(c.Failed, proxy.ErrCommand) {
				t.Errorf("failed %v", c.Failed)
			}
		})
	}
}

// TestMalformed: what no proxy can do fails before anything is sent, or is
// answered, and a silent peer is waited for only for a limited time.
func TestMalformed(t *testing.T) {
	for _, bad := range []struct {
		name string
		l    layer.Layer
	}{
		{"empty name", proxy.SOCKS5(":1")},
		{"name of 256", proxy.SOCKS5(strings.Repeat("a", 256) + ":1")},
		{"lines in a name", proxy.Connect("a\r\nX: y:1")},
		{"NUL in a name", proxy.SOCKS4a("a\x00b:1")},
		{"a name in SOCKS4", proxy.SOCKS4("localhost:1")},
		{"IPv6 in SOCKS4", proxy.SOCKS4a("[::1]:1")},
		{"a scope", proxy.SOCKS5("[fe80::1%eth0]:1")},
		{"no port", proxy.Connect("a")},
		{"empty user", proxy.SOCKS5("a:1", proxy.WithCredentials("", "p"))},
		{"empty password", proxy.SOCKS5("a:1", proxy.WithCredentials("u", ""))},
		{"a line break in a field", proxy.Connect("a:1", proxy.WithHeader([2]string{"X", "a\r\nY: b"}))},
		{"a field without a name", proxy.Connect("a:1", proxy.WithHeader([2]string{"", "a"}))},
		{"empty user, password allowed to be", proxy.SOCKS5("a:1", proxy.WithCredentials("", ""), proxy.WithEmptyPassword())},
		{"user of 256", proxy.SOCKS5("a:1", proxy.WithCredentials(strings.Repeat("u", 256), "p"))},
		{"colon in a user", proxy.Connect("a:1", proxy.WithCredentials("a:b", "p"))},
		{"a silent proxy", proxy.SOCKS5("a:1", proxy.WithTimeout(time.Second))},
	} {
		t.Run(bad.name, func(t *testing.T) {
			w := newProxied(t)
			c, s := &layertest.Ear{}, &layertest.Ear{}
			w.talk(t, func(weir.Transport) weir.Protocol { return s }, c, layertest.Plain, bad.l)
			w.Until("the failure", func() bool { return c.Over() && s.Over() })
			if c.Made != 0 || c.Failed == nil || bad.name != "a silent proxy" && len(s.Got) > 0 {
				t.Errorf("made %d, failed %v, sent %q", c.Made, c.Failed, s.Got)
			}
			if bad.name == "a silent proxy" && !errors.Is(c.Failed, layer.ErrTimeout) {
				t.Errorf("failed %v", c.Failed)
			}
		})
	}
}

// TestEmptyPassword: a client sends an empty password if told to, for proxies
// that have such users; our server lets no one in with one.
func TestEmptyPassword(t *testing.T) {
	w := newProxied(t)
	c, s := &layertest.Ear{}, &layertest.Ear{}
	w.talk(t, func(weir.Transport) weir.Protocol { return s }, c, layertest.Plain, proxy.SOCKS5("192.0.2.1:1", proxy.WithCredentials("u", ""), proxy.WithEmptyPassword()))
	w.Until("the methods", func() bool { return string(s.Got) == "\x05\x02\x00\x02" })
	_, _ = s.Tr.Write([]byte("\x05\x02"))
	w.Until("the password", func() bool { return string(s.Got) == "\x05\x02\x00\x02\x01\x01u\x00" })
	_, _ = s.Tr.Write([]byte("\x01\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"))
	w.Until("the connection", func() bool { return c.Made > 0 })

	w = newProxied(t)
	c = &layertest.Ear{}
	users := proxy.NewUsers(map[string]string{"u": ""})
	w.talk(t, func(weir.Transport) weir.Protocol { t.Error("let in"); return nil }, c, proxy.SOCKSServer(proxy.Version5, proxy.WithUsers(users)), proxy.SOCKS5("192.0.2.1:1", proxy.WithCredentials("u", ""), proxy.WithEmptyPassword()))
	w.Until("the refusal", c.Over)
	if !errors.Is(c.Failed, proxy.ErrAuth) {
		t.Errorf("failed %v", c.Failed)
	}
}

// TestConnectSays: the fields that a CONNECT client sends, the Host for IPv6,
// and where a refusal leads to and what it says.
func TestConnectSays(t *testing.T) {
	for _, c := range []struct{ answer, location, body string }{
		{"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\nmore", "http://login.example/", ""},
		{"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 403 No\r\nContent-Type: text/html\r\n\r\n<p>ask\r\n the\x1b admin", "", "<p>ask the\x1b admin"},
		{"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nask\r\n0\r\n\r\n", "", "ask"},
		{"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nask", "", ""},
		{"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\nask", "", "ask"},
		{"HTTP/1.1 403 No\r\nContent-Type: image/png\r\n\r\nPNG", "", ""},
	} {
		w := newProxied(t)
		p, s := &layertest.Ear{}, &layertest.Ear{}
		w.talk(t, func(weir.Transport) weir.Protocol { return s }, p, layertest.Plain, proxy.Connect("[2001:db8::1]:443", proxy.WithHeader([2]string{"X-One", "1"}, [2]string{"X-Two", ""})))
		const want = "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\nX-One: 1\r\nX-Two: \r\n\r\n"
		w.Until("the request", func() bool { return string(s.Got) == want })
		_, _ = s.Tr.Write([]byte(c.answer))
		w.Until("the failure", p.Over)
		var e *proxy.Error
		if !errors.As(p.Failed, &e) || e.Location != c.location || e.Body != c.body || strings.ContainsAny(e.Error(), "\x1b\r\n") {
			t.Errorf("%q: %#v", c.answer, e)
		}
	}
}

// TestConnectRefusedInPieces: what a refusal says does not depend on the pieces
// in which it arrives. We wait for its text until the proxy ends the stream,
// resets it, or has sent nothing for a second, but not beyond the handshake's
// own deadline.
func TestConnectRefusedInPieces(t *testing.T) {
	const open = "HTTP/1.1 403 No\r\n\r\nask"
	for _, c := range []struct {
		name, answer string
		then         func(weir.Transport)
		limit, after time.Duration
		body         string
	}{
		{"whole", "HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nask", nil, time.Minute, 0, "ask"},
		{"chunked", "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nsk\r\n0\r\n\r\n", nil, time.Minute, 0, "ask"},
		{"ended", open, func(t weir.Transport) { _ = t.Close() }, time.Minute, 0, "ask"},
		{"reset", open, weir.Transport.Abort, time.Minute, 0, "ask"},
		{"open", open, nil, time.Minute, time.Second, "ask"},
		{"late", open, nil, 500 * time.Millisecond, 500 * time.Millisecond, "ask"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newProxied(t)
			p, s := &layertest.Ear{}, &layertest.Ear{}
			w.talk(t, func(weir.Transport) weir.Protocol { return s }, p, layertest.Plain, proxy.Connect("a:1", proxy.WithTimeout(c.limit)))
			w.Until("the request", func() bool { return strings.HasSuffix(string(s.Got), "\r\n\r\n") })
			begun := w.Now()
			for i := range len(c.answer) {
				_, _ = s.Tr.Write([]byte(c.answer[i : i+1]))
				if p.Over() {
					t.Fatalf("it failed before byte %d: %v", i, p.Failed)
				}
				w.Until("the byte", func() bool { return s.Tr.Buffered() == 0 })
			}
			if c.then != nil {
				c.then(s.Tr)
			}
			w.Until("the failure", p.Over)
			var e *proxy.Error
			if !errors.As(p.Failed, &e) || e.Code != 403 || e.Body != c.body || e.Destination != "a:1" {
				t.Errorf("failed %v", p.Failed)
			}
			if took := w.Now() - begun; took < c.after-100*time.Millisecond || took > c.after+100*time.Millisecond {
				t.Errorf("it took %v, want %v", took, c.after)
			}
		})
	}
}
