package layer_test

import (
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// TestTLSReasons: what each side says where certificates do not please
// (behaviour 56): a typed reason with the certificate's names and dates on the
// side that saw it, the alert on the other.
func TestTLSReasons(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	now := time.Now()
	good := issue{cn: "server", dns: []string{"server.test"}}
	for _, c := range []struct {
		name    string
		server  func(*tls.Config)
		client  func(*tls.Config)
		rules   layer.PeerRules
		atSrv   bool // the server sees it
		problem layer.CertificateProblem
		text    []string
	}{
		{
			name:    "unknown authority",
			client:  func(c *tls.Config) { c.RootCAs = others.pool() },
			problem: layer.UnknownAuthority, text: []string{"test authority", "server.test"},
		},
		{
			name:    "wrong name",
			client:  func(c *tls.Config) { c.ServerName = "elsewhere.test" },
			problem: layer.WrongName, text: []string{"server.test", "elsewhere.test"},
		},
		{
			name: "expired",
			server: func(c *tls.Config) {
				c.Certificates = []tls.Certificate{ours.issue(issue{cn: "server", dns: good.dns, from: now.Add(-48 * time.Hour), till: now.Add(-24 * time.Hour)})}
			},
			problem: layer.Expired, text: []string{now.Add(-24 * time.Hour).UTC().Format("2006-01-02"), now.UTC().Format("2006-01-02")},
		},
		{
			name: "not yet valid",
			server: func(c *tls.Config) {
				c.Certificates = []tls.Certificate{ours.issue(issue{cn: "server", dns: good.dns, from: now.Add(24 * time.Hour), till: now.Add(48 * time.Hour)})}
			},
			problem: layer.NotYetValid, text: []string{now.Add(24 * time.Hour).UTC().Format("2006-01-02")},
		},
		{
			name: "client of an unknown authority",
			server: func(c *tls.Config) {
				c.ClientCAs, c.ClientAuth = ours.pool(), tls.RequireAndVerifyClientCert
			},
			client: func(c *tls.Config) {
				cert := others.issue(issue{cn: "mallory"})
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			},
			atSrv: true, problem: layer.UnknownAuthority, text: []string{"test authority"},
		},
		{
			name: "client with an expired certificate",
			server: func(c *tls.Config) {
				c.ClientCAs, c.ClientAuth = ours.pool(), tls.RequireAndVerifyClientCert
			},
			client: func(c *tls.Config) {
				c.Certificates = []tls.Certificate{ours.issue(issue{cn: "late", from: now.Add(-48 * time.Hour), till: now.Add(-24 * time.Hour)})}
			},
			atSrv: true, problem: layer.Expired, text: []string{now.Add(-24 * time.Hour).UTC().Format("2006-01-02")},
		},
		{
			name:   "no client certificate",
			server: func(c *tls.Config) { c.ClientCAs, c.ClientAuth = ours.pool(), tls.RequireAndVerifyClientCert },
			atSrv:  true, problem: layer.Missing, text: []string{"no certificate"},
		},
		{
			name:   "client that no rule names",
			server: func(c *tls.Config) { c.ClientCAs = ours.pool() },
			client: func(c *tls.Config) {
				c.Certificates = []tls.Certificate{ours.issue(issue{cn: "guest", uri: "spiffe://test/guest"})}
			},
			rules: layer.PeerRules{CommonNames: []string{"billing"}, URIs: []string{"spiffe://test/billing"}},
			atSrv: true, problem: layer.NotAllowed, text: []string{"CN=guest", "spiffe://test/guest", "billing"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			versions(t, func(t *testing.T, v uint16) {
				server := &tls.Config{Certificates: []tls.Certificate{ours.issue(good)}, MaxVersion: v}
				client := &tls.Config{RootCAs: ours.pool(), ServerName: "server.test", MaxVersion: v}
				if c.server != nil {
					c.server(server)
				}
				if c.client != nil {
					c.client(client)
				}
				r := newRig(t)
				sEar, cEar := &ear{}, &ear{keepOpen: true}
				r.pair(sEar, []layer.Layer{layer.TLSServer(server, layer.WithPeerRules(c.rules))}, cEar, []layer.Layer{layer.TLS(client)})
				r.until("the end", func() bool { return cEar.over() && len(r.reported) > 0 })
				clientErr := cEar.failed
				if cEar.made > 0 {
					clientErr = cEar.err // TLS 1.3 tells the client after its handshake
				}
				saw, told := clientErr, r.reported[0]
				if c.atSrv {
					saw, told = told, saw
				}
				var cert *layer.CertificateError
				if !errors.As(saw, &cert) || cert.Problem != c.problem {
					t.Fatalf("the side that saw it says: %v", saw)
				}
				for _, want := range c.text {
					if !strings.Contains(saw.Error(), want) {
						t.Errorf("%q does not say %q", saw, want)
					}
				}
				var alert *layer.AlertError
				// TLS 1.2 has no alert of its own for a certificate that is missing.
				vague := c.problem == layer.Missing && v == tls.VersionTLS12
				if !errors.As(told, &alert) || !alert.Certificate() && !vague {
					t.Errorf("the other side says: %v", told)
				}
				if sEar.made > 0 {
					t.Error("the server's protocol was made")
				}
				var attempt *weir.AttemptError
				if !errors.As(r.reported[0], &attempt) || attempt.Stage != weir.StageHandshake || attempt.Addr == nil {
					t.Errorf("reported: %#v", r.reported[0])
				}
			})
		})
	}
}

// TestTLSNoProtocol: a client none of whose protocols the server knows; the
// server's reason says which they were, once whose reason it is.
func TestTLSNoProtocol(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		server.NextProtos, client.NextProtos = []string{"h2"}, []string{"chat\r\n", "x"}
		r := newRig(t)
		cEar := &ear{}
		r.pair(&ear{}, []layer.Layer{layer.TLSServer(server)}, cEar, []layer.Layer{layer.TLS(client)})
		r.until("the end", func() bool { return cEar.over() && len(r.reported) > 0 })
		var attempt *weir.AttemptError
		if !errors.As(r.reported[0], &attempt) || !errors.Is(attempt, layer.ErrProtocols) ||
			attempt.Err.Error() != `tls: no application protocol in common (ALPN): the client offers ["chat\r\n" "x"]` {
			t.Errorf("the server says: %v", r.reported[0])
		}
		var alert *layer.AlertError
		if !errors.As(cEar.failed, &alert) || alert.Alert != 120 {
			t.Errorf("the client says: %v", cEar.failed)
		}
	})
}

// TestTLSNotTLS: a peer that speaks something else, or nothing for too long, or
// hangs up (behaviour 50).
func TestTLSNotTLS(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	var record tls.RecordHeaderError
	for _, c := range []struct {
		name string
		send string
		end  bool
		ok   func(error) bool
	}{
		{"another language", "GET / HTTP/1.1\r\n\r\n", false, func(err error) bool { return errors.As(err, &record) }},
		{"silence", "", false, func(err error) bool { return errors.Is(err, layer.ErrTimeout) }},
		{"half a record", "\x16\x03\x01\x02\x00\x01", false, func(err error) bool { return errors.Is(err, layer.ErrTimeout) }},
		{"nothing at all", "", true, func(err error) bool { return errors.Is(err, layer.ErrEarlyEnd) }},
		{"half a record and an end", "\x16\x03\x01\x02\x00\x01", true, func(err error) bool { return errors.Is(err, layer.ErrEarlyEnd) }},
	} {
		// Only where nothing comes may the time run out: a machine may be busy.
		patience := 15 * time.Second
		if c.ok(layer.ErrTimeout) {
			patience = 100 * time.Millisecond
		}
		t.Run("to a server/"+c.name, func(t *testing.T) {
			r := newRig(t)
			e := &ear{}
			addr := r.listen(func() *ear { return e }, layer.TLSServer(server, layer.WithHandshakeTimeout(patience)))
			raw := r.dial(addr)
			_, _ = raw.Write([]byte(c.send))
			if c.end {
				_ = raw.Close()
			}
			r.until("the report", func() bool { return len(r.reported) > 0 && r.loop.Connections() == 0 })
			if !c.ok(r.reported[0]) || e.made > 0 {
				t.Errorf("reported: %v", r.reported[0])
			}
		})
		t.Run("to a client/"+c.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ln.Close() }()
			r := newRig(t)
			e := &ear{}
			r.loop.Connect("tcp", ln.Addr().String(), layer.Client(e, layer.TLS(client, layer.WithHandshakeTimeout(patience))))
			var conn net.Conn
			r.peer(func() error {
				var err error
				conn, err = ln.Accept()
				if err != nil {
					return err
				}
				_, err = conn.Write([]byte(c.send))
				return err
			})
			defer func() { _ = conn.Close() }()
			if c.end {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			r.until("the failure", func() bool { return e.over() && r.loop.Connections() == 0 })
			if !c.ok(e.failed) || e.made > 0 {
				t.Errorf("failed: %v", e.failed)
			}
		})
	}
}

// TestTLSCallbacks: what a program's own functions can do wrong costs one
// connection: a panic is reported as one, with its stack, and a Goexit ends only
// its goroutine (R8).
func TestTLSCallbacks(t *testing.T) {
	for _, c := range []struct {
		name string
		f    func()
		ok   func(err error) bool
	}{
		{"panic", func() { panic("no config today") }, func(err error) bool {
			var p *weir.PanicError
			return errors.As(err, &p) && p.Value == "no config today" && len(p.Stack) > 0
		}},
		{"Goexit", runtime.Goexit, func(err error) bool { return strings.Contains(err.Error(), "Goexit") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, client := tlsPair(t, tls.VersionTLS13)
			server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { c.f(); return nil, nil }
			r := newRig(t)
			s, e := &ear{}, &ear{}
			r.pair(s, []layer.Layer{layer.TLSServer(server)}, e, []layer.Layer{layer.TLS(client)})
			r.until("the end", func() bool { return e.over() && r.loop.Connections() == 0 && len(r.reported) > 0 })
			if !slices.ContainsFunc(r.reported, c.ok) || e.failed == nil || s.made > 0 {
				t.Errorf("reported: %v; the client: %v", r.reported, e.failed)
			}
		})
	}
}

// TestPeerRules: which certificates rules accept.
func TestPeerRules(t *testing.T) {
	a := newAuthority(t)
	cert := a.issue(issue{cn: "billing", dns: []string{"db.corp.test", "*.web.test"}, uri: "spiffe://Corp.test/ns/prod/billing"}).Leaf
	bare := a.issue(issue{}).Leaf
	for _, c := range []struct {
		rules layer.PeerRules
		want  bool
	}{
		{layer.PeerRules{}, true},
		{layer.PeerRules{CommonNames: []string{"billing"}}, true},
		{layer.PeerRules{CommonNames: []string{"Billing", "bill", "billing2", ""}}, false},
		{layer.PeerRules{DNSNames: []string{"DB.corp.test."}}, true},
		{layer.PeerRules{DNSNames: []string{"*.corp.test"}}, true},
		{layer.PeerRules{DNSNames: []string{"*.test"}}, false},
		{layer.PeerRules{DNSNames: []string{"corp.test"}}, false},
		{layer.PeerRules{DNSNames: []string{"a.web.test"}}, false}, // the certificate is for all of them, the rule for one
		{layer.PeerRules{DNSNames: []string{"*.web.test"}}, true},
		{layer.PeerRules{URIs: []string{"spiffe://corp.test/ns/prod/billing"}}, true},
		{layer.PeerRules{URIs: []string{"spiffe://corp.test/ns/*/billing"}}, true},
		{layer.PeerRules{URIs: []string{"spiffe://corp.test/**"}}, true},
		{layer.PeerRules{URIs: []string{"spiffe://corp.test/ns/prod/billing/**"}}, true},
		{layer.PeerRules{URIs: []string{"spiffe://corp.test/*"}}, false},
		{layer.PeerRules{URIs: []string{"spiffe://corp.test/ns/prod/billing?x"}}, false},
		{layer.PeerRules{URIs: []string{"spiffe://corp.test/ns/prod/bill"}}, false},
		{layer.PeerRules{URIs: []string{"spiffe://corp.test.evil/ns/prod/billing", "https://corp.test/ns/prod/billing"}}, false},
		{layer.PeerRules{CommonNames: []string{"x"}, URIs: []string{"spiffe://corp.test/**"}}, true},
	} {
		if got := c.rules.Allow(cert); got != c.want {
			t.Errorf("%v: %v, want %v", c.rules, got, c.want)
		}
		if c.rules.String() != "" && c.rules.Allow(bare) {
			t.Errorf("%v accepts a certificate without names", c.rules)
		}
	}
}

// TestTLSRulesInPlaceOfName: a client without a name takes whom the rules name,
// if an authority vouches, and nobody else (SPIFFE).
func TestTLSRulesInPlaceOfName(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	rules := layer.PeerRules{URIs: []string{"spiffe://test/db"}}
	for _, c := range []struct {
		name string
		cert tls.Certificate
		skip bool
		want bool
	}{
		{"the right one", ours.issue(issue{uri: "spiffe://test/db"}), false, true},
		{"another", ours.issue(issue{uri: "spiffe://test/web"}), false, false},
		{"one that nobody vouches for", others.issue(issue{uri: "spiffe://test/db"}), false, false},
		{"verifying is off", ours.issue(issue{uri: "spiffe://test/db"}), true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			s, e := &ear{}, &ear{}
			client := layer.TLS(&tls.Config{RootCAs: ours.pool(), InsecureSkipVerify: c.skip}, layer.WithPeerRules(rules))
			r.pair(s, []layer.Layer{layer.TLSServer(&tls.Config{Certificates: []tls.Certificate{c.cert}})}, e, []layer.Layer{client})
			if (e.made > 0) != c.want {
				t.Errorf("made %d, failed %v", e.made, e.failed)
			}
		})
	}
}
