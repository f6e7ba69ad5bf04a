package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/netconn"
	"github.com/weir-io/weir/relay"
)

// h2Config is a server's TLS that speaks only HTTP/2.
func h2Config(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"server.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}}
}

// serveH2C serves HTTP/2 by net/http on the connections that ln accepts, until
// the test ends. They are in the clear: TLS has been terminated before it.
func serveH2C(t *testing.T, ln net.Listener) {
	srv := &http.Server{Handler: http.HandlerFunc(hello), Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
}

// TestH2specTLS: net/http's HTTP/2 passes h2spec through weir's TLS, over netconn
// and behind a relay that terminates TLS. A case that fails must fail with
// net/http's own TLS, too.
func TestH2specTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	cfg := h2Config(t)
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(hello), TLSConfig: cfg.Clone()}
	go func() { _ = srv.ServeTLS(own, "", "") }()
	t.Cleanup(func() { _ = srv.Close() })
	want, cases := h2specTLS(own.Addr())
	if cases < 100 {
		t.Fatalf("only %d cases ran", cases)
	}
	t.Logf("with net/http's own TLS: %d of %d fail: %q", len(want), cases, want)

	clear, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveH2C(t, clear)
	more, _ := h2spec(clear.Addr())
	t.Logf("in the clear: %d fail: %q", len(more), more)

	serve := map[string]func(*testing.T, *weir.Loop) net.Addr{
		"netconn": func(t *testing.T, l *weir.Loop) net.Addr {
			ln, err := netconn.NewListener(l, func(f weir.Factory) (*weir.Listener, error) {
				return l.Listen("tcp", "127.0.0.1:0", layer.Server(f, layer.TLSServer(cfg)))
			})
			if err != nil {
				t.Fatal(err)
			}
			serveH2C(t, ln)
			return ln.Addr()
		},
		"relay": func(t *testing.T, l *weir.Loop) net.Addr {
			back, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			serveH2C(t, back)
			f := func(tr weir.Transport) weir.Protocol {
				r := relay.New(relay.Config{})
				tr.Loop().Connect("tcp", back.Addr().String(), r.Protocol(relay.B))
				return r.Protocol(relay.A)
			}
			ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(f, layer.TLSServer(cfg, layer.WithHandshakeWorkers(1))))
			if err != nil {
				t.Fatal(err)
			}
			return ln.Addr()
		},
	}
	for name, serve := range serve {
		t.Run(name, func(t *testing.T) {
			onBackends(t, func(t *testing.T, l *weir.Loop) {
				addr, err := netconn.Call(within(t, 20*time.Second), l, func() (net.Addr, error) { return serve(t, l), nil })
				if err != nil {
					t.Fatal(err)
				}
				agrees(t, func(sections ...string) ([]string, int) { return h2specTLS(addr, sections...) }, slices.Concat(want, more), cases)
			})
		})
	}
}

// TestH2BodyTLS: a large body each way by net/http on both ends, through weir's
// TLS.
func TestH2BodyTLS(t *testing.T) {
	cfg := h2Config(t)
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		ln, err := netconn.Call(within(t, 20*time.Second), l, func() (*netconn.Listener, error) {
			return netconn.NewListener(l, func(f weir.Factory) (*weir.Listener, error) {
				return l.Listen("tcp", "127.0.0.1:0", layer.Server(f, layer.TLSServer(cfg)))
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 2 {
				t.Errorf("it speaks %s", r.Proto)
			}
			_, _ = io.Copy(w, r.Body) // the client notices what is missing
		})}
		srv.Protocols.SetUnencryptedHTTP2(true)
		go func() { _ = srv.Serve(ln) }()
		t.Cleanup(func() { _ = srv.Close() })
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
		errs := make(chan error, 4)
		for i := range cap(errs) {
			go func() { errs <- echo(client, "https://"+ln.Addr().String(), pattern(300_000+i)) }()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}
