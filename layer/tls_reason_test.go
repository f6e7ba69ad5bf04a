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
	"github.com/weir-io/weir/certs"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// TestTLSReasons: what each side reports when a certificate is not accepted
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
		rules   certs.PeerRules
		atSrv   bool // the server sees the problem
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
			rules: certs.PeerRules{CommonNames: []string{"billing"}, URIs: []string{"spiffe://test/billing"}},
			atSrv: true, problem: layer.NotAllowed, text: []string{"CN=guest", "spiffe://test/guest", "billing"},
		},
		{
			name:   "client with two common names, one of them allowed (S9)",
			server: func(c *tls.Config) { c.ClientCAs = ours.pool() },
			client: func(c *tls.Config) {
				c.Certificates = []tls.Certificate{ours.issue(issue{cns: []string{"guest"}, cn: "billing"})}
			},
			rules: certs.PeerRules{CommonNames: []string{"billing"}},
			atSrv: true, problem: layer.Ambiguous, text: []string{"more than one common name"},
		},
		{
			name:   "client with two common names, the first of them allowed (S9)",
			server: func(c *tls.Config) { c.ClientCAs = ours.pool() },
			client: func(c *tls.Config) {
				c.Certificates = []tls.Certificate{ours.issue(issue{cns: []string{"billing"}, cn: "guest"})}
			},
			rules: certs.PeerRules{CommonNames: []string{"billing"}},
			atSrv: true, problem: layer.Ambiguous, text: []string{"more than one common name"},
		},
		{
			name:   "client with two SPIFFE IDs (S9)",
			server: func(c *tls.Config) { c.ClientCAs = ours.pool() },
			client: func(c *tls.Config) {
				c.Certificates = []tls.Certificate{ours.issue(issue{uris: []string{"spiffe://test/guest", "spiffe://test/billing"}})}
			},
			rules: certs.PeerRules{URIs: []string{"spiffe://test/billing"}},
			atSrv: true, problem: layer.Ambiguous, text: []string{"SPIFFE"},
		},
		{
			name:   "client with an authority's certificate (S9)",
			server: func(c *tls.Config) { c.ClientCAs, c.ClientAuth = ours.pool(), tls.RequireAndVerifyClientCert },
			client: func(c *tls.Config) {
				c.Certificates = []tls.Certificate{ours.issue(issue{cn: "billing", ca: true})}
			},
			atSrv: true, problem: layer.OfAuthority, text: []string{"sign others", "127.0.0.1"},
		},
		{
			name:   "client with an authority's certificate that a rule names (S9)",
			server: func(c *tls.Config) { c.ClientCAs = ours.pool() },
			client: func(c *tls.Config) {
				c.Certificates = []tls.Certificate{ours.issue(issue{cn: "billing", ca: true})}
			},
			rules: certs.PeerRules{CommonNames: []string{"billing"}},
			atSrv: true, problem: layer.OfAuthority, text: []string{"sign others"},
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
				sEar, cEar := &layertest.Ear{}, &layertest.Ear{KeepOpen: true}
				r.pair(sEar, []layer.Layer{layer.TLSServer(server, layer.WithPeerRules(c.rules))}, cEar, []layer.Layer{layer.TLS(client)})
				r.until("the end", func() bool { return cEar.Over() && len(r.reported) > 0 })
				clientErr := cEar.Failed
				if cEar.Made > 0 {
					clientErr = cEar.Err // TLS 1.3 tells the client after its handshake
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
				// TLS 1.2 has no specific alert for a missing certificate.
				vague := c.problem == layer.Missing && v == tls.VersionTLS12
				if !errors.As(told, &alert) || !alert.Certificate() && !vague {
					t.Errorf("the other side says: %v", told)
				}
				if sEar.Made > 0 {
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

// TestTLSServerRules: a client's rules refuse a server's certificate for the
// same reasons, and a certificate that is not ambiguous is not refused as
// ambiguous (S9).
func TestTLSServerRules(t *testing.T) {
	ours := newAuthority(t)
	for _, c := range []struct {
		name  string
		cert  issue
		rules certs.PeerRules
		want  layer.CertificateProblem // "": it is accepted
	}{
		{"two common names", issue{cns: []string{"a"}, cn: "b"}, certs.PeerRules{CommonNames: []string{"b"}}, layer.Ambiguous},
		{"two common names, and a DNS name", issue{cns: []string{"a"}, cn: "b", dns: []string{"x.test"}}, certs.PeerRules{CommonNames: []string{"b"}, DNSNames: []string{"x.test"}}, ""},
		{"a SPIFFE ID and another URI", issue{uris: []string{"spiffe://a/b", "https://a.test/"}}, certs.PeerRules{URIs: []string{"https://a.test/"}}, layer.Ambiguous},
		{"two URIs", issue{uris: []string{"https://b.test/", "https://a.test/"}}, certs.PeerRules{URIs: []string{"https://a.test/"}}, ""},
		{"an authority's", issue{cn: "b", ca: true}, certs.PeerRules{CommonNames: []string{"b"}}, layer.OfAuthority},
		{"an authority's, by its name alone", issue{cn: "b", dns: []string{"server.test"}, ca: true}, certs.PeerRules{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := &tls.Config{RootCAs: ours.pool()}
			if len(c.rules.CommonNames)+len(c.rules.URIs) == 0 {
				client.ServerName = "server.test"
			}
			r := newRig(t)
			e := &layertest.Ear{}
			server := layer.TLSServer(&tls.Config{Certificates: []tls.Certificate{ours.issue(c.cert)}})
			r.pair(&layertest.Ear{}, []layer.Layer{server}, e, []layer.Layer{layer.TLS(client, layer.WithPeerRules(c.rules))})
			var cert *layer.CertificateError
			switch {
			case c.want == "" && e.Made == 0:
				t.Error(e.Failed)
			case c.want != "" && (!errors.As(e.Failed, &cert) || cert.Problem != c.want):
				t.Errorf("%v, want %s", e.Failed, c.want)
			}
			if e.Made > 0 {
				e.Tr.Abort()
			}
			r.until("the end", func() bool { return r.loop.Connections() == 0 })
		})
	}
}

// TestTLSProtocolRequired: if a protocol is required, a peer that does not know
// ALPN is refused, and told so by the alert for it (S9).
func TestTLSProtocolRequired(t *testing.T) {
	needed := layer.WithProtocolRequired()
	for _, c := range []struct {
		name           string
		server, client []string // the protocols that each has
		opts           []layer.TLSOption
		ok             bool
		alert          uint8 // the one that the refused side gets
	}{
		{"a client without", []string{"h2"}, nil, []layer.TLSOption{needed}, false, 120},
		{"a client without, not required", []string{"h2"}, nil, nil, true, 0},
		{"a client without, for HTTP/1.1 too", []string{"h2", "http/1.1"}, nil, []layer.TLSOption{needed}, true, 0},
		{"a client with another", []string{"h2"}, []string{"x"}, []layer.TLSOption{needed}, false, 120},
		{"a server without", nil, []string{"h2"}, []layer.TLSOption{needed}, false, 0},
		{"both", []string{"h2"}, []string{"x", "h2"}, []layer.TLSOption{needed}, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			versions(t, func(t *testing.T, v uint16) {
				server, client := tlsPair(t, v)
				server.NextProtos, client.NextProtos = c.server, c.client
				r := newRig(t)
				e := &layertest.Ear{}
				r.pair(&layertest.Ear{}, []layer.Layer{layer.TLSServer(server, c.opts...)}, e, []layer.Layer{layer.TLS(client, c.opts...)})
				if c.ok != (e.Made > 0) {
					t.Fatalf("made %d, failed %v", e.Made, e.Failed)
				}
				if c.ok {
					e.Tr.Abort()
					r.until("the end", func() bool { return r.loop.Connections() == 0 })
					return
				}
				r.until("a report", func() bool { return len(r.reported) > 0 })
				var alert *layer.AlertError
				switch {
				case c.alert == 0 && !errors.Is(e.Failed, layer.ErrProtocols):
					t.Errorf("the client: %v", e.Failed)
				case c.alert != 0 && (!errors.As(e.Failed, &alert) || alert.Alert != c.alert || !errors.Is(r.reported[0], layer.ErrProtocols)):
					t.Errorf("the client: %v; the server: %v", e.Failed, r.reported)
				}
				r.until("the end", func() bool { return r.loop.Connections() == 0 })
			})
		})
	}
}

// TestTLSSuites: neither side uses TLS 1.2 with CBC, which crypto/tls still
// supports (S9).
func TestTLSSuites(t *testing.T) {
	cbc := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}
	for _, old := range []string{"client", "server"} {
		t.Run(old, func(t *testing.T) {
			server, client := tlsPair(t, tls.VersionTLS12)
			if old == "client" {
				client.CipherSuites = cbc
			} else {
				server.CipherSuites = cbc
			}
			r := newRig(t)
			e := &layertest.Ear{}
			r.pair(&layertest.Ear{}, []layer.Layer{layer.TLSServer(server)}, e, []layer.Layer{layer.TLS(client)})
			if e.Made > 0 || e.Failed == nil {
				t.Errorf("made %d, failed %v", e.Made, e.Failed)
			}
			r.until("the end", func() bool { return r.loop.Connections() == 0 })
		})
	}
}

// TestTLSNoProtocol: the server knows none of the client's protocols; its
// reason lists them, and names the layer just once.
func TestTLSNoProtocol(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		server.NextProtos, client.NextProtos = []string{"h2"}, []string{"chat\r\n", "x"}
		r := newRig(t)
		cEar := &layertest.Ear{}
		r.pair(&layertest.Ear{}, []layer.Layer{layer.TLSServer(server)}, cEar, []layer.Layer{layer.TLS(client)})
		r.until("the end", func() bool { return cEar.Over() && len(r.reported) > 0 })
		var attempt *weir.AttemptError
		if !errors.As(r.reported[0], &attempt) || !errors.Is(attempt, layer.ErrProtocols) ||
			attempt.Err.Error() != `tls: no application protocol in common (ALPN): the client offers ["chat\r\n" "x"]` {
			t.Errorf("the server says: %v", r.reported[0])
		}
		var alert *layer.AlertError
		if !errors.As(cEar.Failed, &alert) || alert.Alert != 120 {
			t.Errorf("the client says: %v", cEar.Failed)
		}
	})
}

// TestTLSNotTLS: a peer that speaks another protocol, or sends nothing for too
// long, or hangs up (behaviour 50).
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
		// The time may run out only if nothing arrives: a machine may be busy.
		patience := 15 * time.Second
		if c.ok(layer.ErrTimeout) {
			patience = 500 * time.Millisecond
		}
		t.Run("to a server/"+c.name, func(t *testing.T) {
			r := newRig(t)
			e := &layertest.Ear{}
			addr := r.listen(func() *layertest.Ear { return e }, layer.TLSServer(server, layer.WithHandshakeTimeout(patience)))
			raw := r.dial(addr)
			_, _ = raw.Write([]byte(c.send))
			if c.end {
				_ = raw.Close()
			}
			r.until("the report", func() bool { return len(r.reported) > 0 && r.loop.Connections() == 0 })
			if !c.ok(r.reported[0]) || e.Made > 0 {
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
			e := &layertest.Ear{}
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
			r.until("the failure", func() bool { return e.Over() && r.loop.Connections() == 0 })
			if !c.ok(e.Failed) || e.Made > 0 {
				t.Errorf("failed: %v", e.Failed)
			}
		})
	}
}

// TestTLSCallbacks: a fault in a program's own functions costs one connection:
// a panic is reported as such, with its stack, and a Goexit ends only its
// goroutine (R8).
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
			s, e := &layertest.Ear{}, &layertest.Ear{}
			r.pair(s, []layer.Layer{layer.TLSServer(server)}, e, []layer.Layer{layer.TLS(client)})
			r.until("the end", func() bool { return e.Over() && r.loop.Connections() == 0 && len(r.reported) > 0 })
			if !slices.ContainsFunc(r.reported, c.ok) || e.Failed == nil || s.Made > 0 {
				t.Errorf("reported: %v; the client: %v", r.reported, e.Failed)
			}
		})
	}
}

// TestTLSRulesInPlaceOfName: a client without a server name accepts the peer
// that the rules name, if an authority vouches for it, and no other (SPIFFE).
func TestTLSRulesInPlaceOfName(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	rules := certs.PeerRules{URIs: []string{"spiffe://test/db"}}
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
			s, e := &layertest.Ear{}, &layertest.Ear{}
			client := layer.TLS(&tls.Config{RootCAs: ours.pool(), InsecureSkipVerify: c.skip}, layer.WithPeerRules(rules))
			r.pair(s, []layer.Layer{layer.TLSServer(&tls.Config{Certificates: []tls.Certificate{c.cert}})}, e, []layer.Layer{client})
			if (e.Made > 0) != c.want {
				t.Errorf("made %d, failed %v", e.Made, e.Failed)
			}
		})
	}
}
