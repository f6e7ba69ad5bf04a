package dns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
	"github.com/weir-io/weir/layer"
)

// secured returns a server's TLS configuration for a name, and the authorities
// that vouch for it.
func secured(t *testing.T, l *weir.Loop, name string) (server *tls.Config, authorities *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: l.Now().Add(-time.Hour), NotAfter: l.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	authorities = x509.NewCertPool()
	authorities.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, Time: l.Now}, authorities
}

// serveTLS lets the lab's server answer over TLS too, and counts its connections.
func (lb *lab) serveTLS(name string) (ln *weir.Listener, cfg *tls.Config, conns *[]weir.Transport) {
	lb.t.Helper()
	server, authorities := secured(lb.t, lb.s.l, name)
	conns = new([]weir.Transport)
	ln, err := lb.s.l.Listen("tcp4", netip.AddrPortFrom(lb.s.addr.Addr(), 0).String(), layer.ServerFunc(func(t weir.Transport) weir.Protocol {
		*conns = append(*conns, t)
		return &testStream{s: lb.s}
	}, func(weir.Transport, *weir.AttemptError) {}, layer.TLSServer(server)))
	if err != nil {
		lb.t.Fatal(err)
	}
	return ln, &tls.Config{RootCAs: authorities, ServerName: "dns.test", Time: lb.l.Now}, conns
}

// overTLS makes the resolver ask at ln.
func overTLS(ln *weir.Listener, cfg *tls.Config) []Option {
	secure := layer.TLS(cfg)
	return []Option{
		WithServers(ln.Addr().(*net.TCPAddr).AddrPort()),
		WithTimeout(10*time.Second, 2),
		WithStream(func(l *weir.Loop, server netip.AddrPort, p weir.Protocol) func() {
			c := l.Connect("tcp", server.String(), layer.Client(p, secure))
			return func() { c.Stop() }
		}),
	}
}

// rest ends what the resolver keeps open, and waits until the loops have
// noticed.
func (lb *lab) rest(r *Resolver) {
	lb.t.Helper()
	lb.clean(r)
	r.Forget(lb.l)
	lb.until("the last connection to be gone", func() bool { return lb.l.Connections()+lb.s.l.Connections() == 0 })
	quiet := false
	lb.l.After(10*time.Millisecond, func() { quiet = true })
	lb.until("quiet", func() bool { return quiet })
}

// TestOverTLS: DNS over TLS is the TLS layer on the resolver's stream. All
// queries share a connection, go nowhere else and reveal nothing by their
// length, and a new connection resumes the session (RFC 7858, RFC 8467).
func TestOverTLS(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		for i := range 30 {
			lb.s.add(fmt.Sprintf("n%d.test 60 A 192.0.2.%d", i, i))
		}
		ln, cfg, conns := lb.serveTLS("dns.test")
		r := lb.resolver(overTLS(ln, cfg)...)
		all := make([]*found, 30)
		for i := range all {
			all[i] = lb.ask(r, fmt.Sprintf("n%d.test", i), A)
		}
		lb.until("all answers", func() bool {
			for _, f := range all {
				if f.n == 0 {
					return false
				}
			}
			return true
		})
		for i, f := range all {
			if f.err != nil || len(f.a.Records) != 1 || f.a.Records[0].Addr.As4()[3] != byte(i) {
				t.Errorf("n%d.test: %v, %v", i, f.a, f.err)
			}
		}
		if len(*conns) != 1 {
			t.Errorf("%d connections for 30 queries", len(*conns))
		}
		for i, q := range lb.s.queries {
			if !strings.HasSuffix(q, " tcp") {
				t.Errorf("in the clear: %s", q)
			}
			if n := lb.s.sizes[i]; n%padTo != 0 {
				t.Errorf("a query of %d bytes", n)
			}
		}
		// The server ends the connection; the next question gets another.
		_ = (*conns)[0].Close()
		lb.until("the end of the connection", func() bool { return len(r.client(lb.l).trunks) == 0 })
		if f := lb.lookup(r, "n1.test.", AAAA); !errors.Is(f.err, ErrNotFound) {
			t.Errorf("after the server's end: %v, %v", f.a, f.err)
		}
		if len(*conns) != 2 {
			t.Fatalf("%d connections", len(*conns))
		}
		s, ok := weir.As[interface{ ConnectionState() tls.ConnectionState }]((*conns)[1])
		if !ok || !s.ConnectionState().DidResume {
			t.Error("the session was not resumed")
		}
		lb.rest(r)
	})
}

// TestOverTLSRefused: a server that cannot prove its identity learns no name,
// over TLS or otherwise.
func TestOverTLSRefused(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		lb.s.add("a.test 60 A 192.0.2.1")
		ln, cfg, _ := lb.serveTLS("other.test")
		r := lb.resolver(overTLS(ln, cfg)...)
		f := lb.lookup(r, "a.test", A)
		var e *Error
		if !errors.As(f.err, &e) || len(e.Tried) != 2 {
			t.Fatalf("%v, %v", f.a, f.err)
		}
		var bad *layer.CertificateError
		var connect *weir.ConnectError
		if !errors.As(e.Tried[0].Err, &bad) || !errors.As(e.Tried[0].Err, &connect) || connect.Stage != weir.StageHandshake {
			t.Errorf("%v", e.Tried[0].Err)
		}
		if len(lb.s.queries) != 0 {
			t.Errorf("asked all the same: %v", lb.s.queries)
		}
		lb.rest(r)
	})
}

// TestTrunk: a query that crosses the end of a connection is asked once more; a
// query without a reply holds up no other; an idle connection is closed;
// replies come in any order, and those that no one waits for are ignored.
func TestTrunk(t *testing.T) {
	onLabs(t, func(t *testing.T, lb *lab) {
		lb.s.add("a.test 60 A 192.0.2.1", "b.test 60 A 192.0.2.2", "c.test 60 A 192.0.2.3", "d.test 60 A 192.0.2.4")
		lb.silence(time.Second)
		r := lb.resolver(WithTCP(), WithCache(0), WithTimeout(lb.timeout, 2))
		var late []byte
		reversed := func(tr weir.Transport, q dnsmessage.Message, reply []byte) bool {
			frame := append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)
			if q.Questions[0].Type == dnsmessage.TypeA && late == nil {
				late = frame
				return true
			}
			// The reply twice, then the one before it, then something
			// unreadable.
			_, _ = tr.Write(append(append(append(frame, frame...), late...), 0, 3, 1, 2, 3))
			return true
		}
		lb.s.tcp = reversed
		a, b := lb.ask(r, "a.test", A), lb.ask(r, "b.test", A)
		lb.until("two answers", func() bool { return a.n > 0 && b.n > 0 })
		if a.err != nil || b.err != nil || a.a.Records[0].Addr.As4()[3] != 1 || b.a.Records[0].Addr.As4()[3] != 2 {
			t.Errorf("%v %v, %v %v", a.a, a.err, b.a, b.err)
		}
		if n := len(lb.s.queries); n != 2 {
			t.Errorf("%d queries", n)
		}

		// The connection has carried a reply; now it ends instead of the next
		// one.
		ended := 0
		lb.s.tcp = func(tr weir.Transport, _ dnsmessage.Message, _ []byte) bool {
			if ended++; ended == 1 {
				_ = tr.Close()
			}
			return ended == 1
		}
		before := lb.l.Now()
		if f := lb.lookup(r, "c.test", A); f.err != nil || len(lb.s.queries) != 4 {
			t.Errorf("%v, %v, queries %v", f.a, f.err, lb.s.queries)
		}
		if took := lb.l.Now().Sub(before); lb.world != nil && took > 250*time.Millisecond {
			t.Errorf("it was waited for: %v", took)
		}

		// There is no reply: the next query goes over another connection.
		silent := 0
		var first weir.Transport
		lb.s.tcp = func(tr weir.Transport, _ dnsmessage.Message, _ []byte) bool {
			if silent++; silent == 1 {
				first = tr
			} else if tr == first {
				t.Error("asked again where there was no reply")
			}
			return silent == 1
		}
		if f := lb.lookup(r, "d.test", A); f.err != nil || silent != 2 {
			t.Errorf("%v, %v after %d", f.a, f.err, silent)
		}
		lb.clean(r)
		if len(r.client(lb.l).trunks) != 1 {
			t.Errorf("%d connections are kept", len(r.client(lb.l).trunks))
		}
		if lb.world != nil {
			lb.pass(trunkIdle + time.Second)
			if u := lb.world.Host("client").Usage(); u.Sockets != 0 || len(r.client(lb.l).trunks) != 0 {
				t.Errorf("an idle connection is kept: %+v", u)
			}
		}
		lb.rest(r)
	})
}

// TestTrunkStopped: a caller that leaves while the connection is being made
// leaves nothing behind, and Forget ends idle connections (G6).
func TestTrunkStopped(t *testing.T) {
	lb := simLab(t, sim.Faults{})
	lb.s.add("a.test 60 A 192.0.2.1")
	ln, cfg, _ := lb.serveTLS("dns.test")
	for at := time.Duration(0); at < 20*time.Millisecond; at += 200 * time.Microsecond {
		r := lb.resolver(append(overTLS(ln, cfg), WithCache(0))...)
		cancel := r.Lookup(lb.l, "a.test", A, func(Answer, error) {})
		lb.pass(at)
		cancel()
		r.Forget(lb.l)
		lb.pass(time.Minute)
		if u := lb.world.Host("client").Usage(); u.Handles != 0 || u.Sockets != 0 || u.Armed != 0 {
			t.Fatalf("left after %v: %+v", at, u)
		}
		if v := lb.world.Violations(); len(v) > 0 {
			t.Fatal(v)
		}
	}
}
