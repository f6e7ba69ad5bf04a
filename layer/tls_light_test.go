package layer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// certificate makes one that vouches for itself.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestTLSLightSteps: with workers, the loop by itself takes the last step of a TLS 1.3
// handshake, and no step in which there is more to compute: the first, TLS 1.2's, those of
// clients with certificates, and those with functions of the caller's. No more than
// lightsPerTurn are taken in a turn.
func TestTLSLightSteps(t *testing.T) {
	own := certificate(t)
	const conns = 3 * lightsPerTurn
	for _, c := range []struct {
		name    string
		change  func(*tls.Config)
		version uint16
		light   bool
	}{
		{"TLS 1.3", func(*tls.Config) {}, tls.VersionTLS13, true},
		{"TLS 1.2", func(*tls.Config) {}, tls.VersionTLS12, false},
		{"client certificates", func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, tls.VersionTLS13, false},
		{"a function", func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { return nil } }, tls.VersionTLS13, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := &tls.Config{Certificates: []tls.Certificate{own}}
			c.change(cfg)
			var s *tlsShared
			l, err := weir.NewLoop()
			if err != nil {
				t.Fatal(err)
			}
			server := TLSServer(cfg, WithHandshakeWorkers(1), func(made *tlsShared) { s = made })
			here, most := 0, 0
			made := 0
			ln, err := l.Listen("tcp", "127.0.0.1:0", Server(func(tr weir.Transport) weir.Protocol {
				made++
				return weir.DataFunc(tr.Write)
			}, server))
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, conns)
			for range conns {
				go func() {
					conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{
						InsecureSkipVerify: true, MaxVersion: c.version, Certificates: []tls.Certificate{own},
					})
					if err == nil {
						_, err = conn.Write([]byte("x"))
					}
					if err == nil {
						_, err = io.ReadFull(conn, make([]byte, 1))
					}
					if conn != nil {
						_ = conn.Close()
					}
					failed <- err
				}()
			}
			for ended := 0; ended < conns; {
				if err := l.Turn(time.Millisecond); err != nil {
					t.Fatal(err)
				}
				if g := s.gates[l]; g != nil { // no one holds s.mu between turns
					here += g.lights
					most = max(most, g.lights)
				}
				select {
				case err := <-failed:
					if ended++; err != nil {
						t.Error(err)
					}
				default:
				}
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if made != conns || most > lightsPerTurn {
				t.Errorf("%d of %d connections, %d steps in a turn", made, conns, most)
			}
			if c.light != (here > 0) {
				t.Errorf("the loop took %d of %d last steps", here, conns)
			}
		})
	}
}
