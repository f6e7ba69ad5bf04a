package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// TestQUIC: quic-go's client and server over netconn's datagrams: a large stream
// there and back, and a stream that is a transport again.
func TestQUIC(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		server, client := quicConfigs()
		serverConn, clientConn := listenPacket(t, l), listenPacket(t, l)
		st, ct := &quic.Transport{Conn: serverConn}, &quic.Transport{Conn: clientConn}
		ln, err := st.Listen(server, nil)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- echoStreams(ln) }()

		ctx := within(t, 30*time.Second)
		c, err := ct.Dial(ctx, serverConn.LocalAddr(), client, nil)
		if err != nil {
			t.Fatal(err)
		}
		body := pattern(1 << 20)
		s, err := c.OpenStreamSync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if _, err := s.Write(body); err != nil {
				t.Error(err)
			}
			_ = s.Close()
		}()
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes came back of %d, %v", len(got), len(body), err)
		}

		s, err = c.OpenStreamSync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p := &collector{body: body, lost: make(chan error, 1)}
		if _, err := netconn.Call(ctx, l, func() (weir.Transport, error) {
			return netconn.Attach(l, quicStream{s}, func(weir.Transport) weir.Protocol { return p })
		}); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-p.lost:
			if err != nil || !bytes.Equal(p.got, body) {
				t.Errorf("as a transport %d bytes came back of %d, %v", len(p.got), len(body), err)
			}
		case <-ctx.Done():
			t.Error("the stream's transport was not lost")
		}

		_ = c.CloseWithError(0, "")
		_ = ln.Close()
		if err := <-served; !errors.Is(err, quic.ErrServerClosed) {
			t.Error(err)
		}
		_, _ = ct.Close(), st.Close()
	})
}

// quicStream has the methods that Attach looks for: quic-go's Close ends only
// writing.
type quicStream struct{ *quic.Stream }

func (s quicStream) CloseWrite() error { return s.Stream.Close() }

func (s quicStream) Close() error {
	s.CancelRead(0)
	return s.Stream.Close()
}

func listenPacket(t *testing.T, l *weir.Loop) *netconn.PacketConn {
	t.Helper()
	c, err := netconn.Call(within(t, 20*time.Second), l, func() (*netconn.PacketConn, error) {
		return netconn.ListenPacket(l, "udp4", "127.0.0.1:0")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// echoStreams returns the bytes of every stream of every connection, until ln is
// closed.
func echoStreams(ln *quic.Listener) error {
	for {
		c, err := ln.Accept(context.Background())
		if err != nil {
			return err
		}
		go func() {
			for {
				s, err := c.AcceptStream(context.Background())
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(s, s)
					_ = s.Close()
				}()
			}
		}()
	}
}

// quicConfigs are for a server on 127.0.0.1 and its clients.
func quicConfigs() (server, client *tls.Config) {
	s := httptest.NewTLSServer(nil) // has a certificate
	defer s.Close()
	pool := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"echo"}},
		&tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{"echo"}}
}
