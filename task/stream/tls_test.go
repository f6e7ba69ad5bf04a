package stream_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
	"github.com/weir-io/weir/weirtest"
)

// tlsPair is a server's and a client's configuration that match.
func tlsPair(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"server"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool, ServerName: "server"}
}

func upgrade(t *task.Task, c *stream.Stream, l layer.Layer) (*stream.Stream, error) {
	return c.Upgrade(t, func(tr weir.Transport, above weir.Factory, failed func(error)) {
		layer.Start(tr, layer.Above{Make: above, Failed: func(err *weir.AttemptError) { failed(err) }}, l)
	})
}

// Both ends begin in the clear and go on with TLS, as coroutines (R39,
// behaviours 51 and 54).
func TestUpgrade(t *testing.T) {
	server, client := tlsPair(t)
	for seed := range uint64(10) {
		f := weirtest.Faults{}
		if seed > 0 {
			f.CutRead, f.CutWire, f.CutWrite = 0.4, 0.4, 0.4
		}
		w := newWorld(t, seed+1, weirtest.WithFaults(f))
		w.serve(func(t *task.Task, c *stream.Stream) error {
			if line, err := c.ReadLine(t, 100); string(line) != "STARTTLS" {
				return errors.Join(errors.New("not STARTTLS: "+string(line)), err)
			}
			if _, err := c.Write([]byte("ready\n")); err != nil {
				return err
			}
			s, err := upgrade(t, c, layer.TLSServer(server))
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte("in the clear")); !errors.Is(err, weir.ErrClosed) {
				w.Error(err)
			}
			return echo(t, s) // closed by closing c
		})
		err := w.dial(func(t *task.Task, c *stream.Stream) error {
			if _, err := c.Write([]byte("STARTTLS\n")); err != nil {
				return err
			}
			if line, err := c.ReadLine(t, 100); string(line) != "ready" {
				return errors.Join(errors.New("not ready: "+string(line)), err)
			}
			s, err := upgrade(t, c, layer.TLS(client))
			if err != nil {
				return err
			}
			if _, err := s.Write([]byte("a secret\n")); err != nil {
				return err
			}
			line, err := s.ReadLine(t, 100)
			if string(line) != "a secret" || err != nil {
				w.Errorf("%q %v", line, err)
			}
			if err := c.Close(); err != nil { // closes s
				return err
			}
			return s.Closed(t)
		})
		if err != nil || len(w.errs) > 0 {
			t.Errorf("seed %d: %v %v", seed+1, err, w.errs)
		}
	}
}

// What came in the clear is never mistaken for secure: it goes to TLS, which refuses it.
func TestUpgradeInjected(t *testing.T) {
	server, client := tlsPair(t)
	for _, late := range []time.Duration{0, time.Second} { // more comes meanwhile
		w := newWorld(t, 1)
		tried := false
		w.serve(func(t *task.Task, c *stream.Stream) error {
			if _, err := c.ReadLine(t, 100); err != nil {
				return err
			}
			if err := t.Sleep(late); err != nil {
				return err
			}
			tried = true
			s, err := upgrade(t, c, layer.TLSServer(server))
			if s != nil || err == nil || errors.Is(err, stream.ErrReadAhead) {
				w.Errorf("late %v: %v, %v", late, s, err)
			}
			return nil
		})
		_ = w.dial(func(t *task.Task, c *stream.Stream) error {
			if _, err := c.Write([]byte("STARTTLS\ninjected\n")); err != nil {
				return err
			}
			if err := t.Sleep(2 * late); err != nil { // the hello comes after the upgrade
				return err
			}
			s, err := upgrade(t, c, layer.TLS(client))
			if err == nil {
				_, err = s.Read(t, make([]byte, 100))
			}
			return err
		})
		if !tried || len(w.errs) > 0 {
			t.Error(tried, w.errs)
		}
	}
}

// TestUpgradeLate: a hello that came together with the line before it, before the task
// read that line, still counts as the hello.
func TestUpgradeLate(t *testing.T) {
	server, client := tlsPair(t)
	for seed := range uint64(20) {
		f := weirtest.Faults{}
		if seed > 0 {
			f.CutRead, f.CutWire, f.CutWrite = 0.4, 0.4, 0.4
		}
		w := newWorld(t, seed+1, weirtest.WithFaults(f))
		w.serve(func(t *task.Task, c *stream.Stream) error {
			if err := t.Sleep(time.Second); err != nil {
				return err
			}
			line, err := c.ReadLine(t, 100)
			if string(line) != "PROXY" {
				return errors.Join(errors.New("not PROXY: "+string(line)), err)
			}
			if seed%2 == 1 {
				err = t.Sleep(time.Second)
			}
			s, e := upgrade(t, c, layer.TLSServer(server))
			if err = errors.Join(err, e); err != nil {
				return err
			}
			return echo(t, s)
		})
		err := w.dial(func(t *task.Task, c *stream.Stream) error {
			if _, err := c.Write([]byte("PROXY\n")); err != nil {
				return err
			}
			s, err := upgrade(t, c, layer.TLS(client))
			if err != nil {
				return err
			}
			if _, err := s.Write([]byte("a secret\n")); err != nil {
				return err
			}
			if line, err := s.ReadLine(t, 100); string(line) != "a secret" || err != nil {
				w.Errorf("%q %v", line, err)
			}
			return nil
		})
		if err != nil || len(w.errs) > 0 {
			t.Errorf("seed %d: %v %v", seed+1, err, w.errs)
		}
	}
}

// TestUpgradeAfterEnd: bytes that came before the end of the stream, and the end
// itself, still pass through a layer that is put in between after both.
func TestUpgradeAfterEnd(t *testing.T) {
	for _, late := range []time.Duration{0, time.Second} {
		w := newWorld(t, 1)
		got, err := []byte(nil), errors.New("nothing was read")
		w.serve(func(t *task.Task, c *stream.Stream) error {
			if _, err := c.ReadLine(t, 100); err != nil {
				return err
			}
			if err := t.Sleep(late); err != nil {
				return err
			}
			s, e := upgrade(t, c, layer.RateLimit(layer.Rate{}, layer.Rate{}))
			if e != nil {
				return e
			}
			b := make([]byte, 100)
			n, e := s.ReadFull(t, b)
			got, err = b[:n], e
			return nil
		})
		if e := w.dial(func(t *task.Task, c *stream.Stream) error {
			_, e := c.Write([]byte("PLAIN\nand the rest"))
			return errors.Join(e, c.CloseWrite(), stream.End(c.Closed(t)))
		}); e != nil || !errors.Is(err, io.ErrUnexpectedEOF) || string(got) != "and the rest" || len(w.errs) > 0 {
			t.Errorf("late %v: %q, %v; the client %v; %v", late, got, err, e, w.errs)
		}
	}
}

// Dial through TLS; a certificate that is not trusted is the error of the dial.
func TestDialThroughTLS(t *testing.T) {
	server, client := tlsPair(t)
	_, stranger := tlsPair(t)
	w := newWorld(t, 1)
	if _, err := w.server.Listen("tcp", ":7000", layer.Server(stream.Factory(w.ss, echo), layer.TLSServer(server))); err != nil {
		t.Fatal(err)
	}
	dial := func(cfg *tls.Config) error {
		return w.run(func(t *task.Task) error {
			c, err := stream.DialThrough(t, w.client, "tcp", "server:7000", func(p weir.Protocol) weir.Protocol {
				return layer.Client(p, layer.TLS(cfg))
			})
			if err != nil {
				return err
			}
			if _, err := c.Write([]byte("x\n")); err != nil {
				return err
			}
			_, err = c.ReadLine(t, 10)
			return errors.Join(err, c.Close(), c.Closed(t))
		})
	}
	if err := dial(client); err != nil {
		t.Error(err)
	}
	err := dial(stranger)
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Error(err)
	}
}
