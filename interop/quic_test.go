package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// TestQUIC: quic-go's client and server over netconn's datagrams: a large stream
// there and back, and a stream that is a transport again.
func TestQUIC(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		server, client := quicConfigs()
		serverConn, clientConn := listenPacket(t, l, "127.0.0.1:0"), listenPacket(t, l, "127.0.0.1:0")
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

// TestQUICEveryAddress: quic-go's server on a socket for every address answers from the
// one that each client asked, which a connected client needs, and finds the socket's buffers (R77).
func TestQUICEveryAddress(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		if !l.Backend().Packets.Local {
			t.Skip("the backend does not tell local addresses (BackendInfo.Packets)")
		}
		server, client := quicConfigs()
		conn := listenPacket(t, l, ":0")
		st := &quic.Transport{Conn: conn}
		ln, err := st.Listen(server, nil)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- echoStreams(ln) }()
		ctx := within(t, 30*time.Second)
		for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
			at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), uint16(conn.LocalAddr().(*net.UDPAddr).Port)))
			connected, err := net.DialUDP("udp4", nil, at)
			if err != nil {
				t.Fatal(err)
			}
			ct := &quic.Transport{Conn: peerOnly{connected}}
			c, err := ct.Dial(ctx, at, client, nil)
			if err != nil {
				t.Fatalf("%s: %v", host, err)
			}
			s, err := c.OpenStreamSync(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte(host)); err != nil {
				t.Fatal(err)
			}
			_ = s.Close()
			if got, err := io.ReadAll(s); err != nil || string(got) != host {
				t.Errorf("%s: %q came back, %v", host, got, err)
			}
			_ = c.CloseWithError(0, "")
			_, _ = ct.Close(), connected.Close()
		}
		_ = ln.Close()
		if err := <-served; !errors.Is(err, quic.ErrServerClosed) {
			t.Error(err)
		}
		_ = st.Close()
	})
}

// peerOnly is a connected socket, which hears nothing but its peer, as a
// net.PacketConn.
type peerOnly struct{ *net.UDPConn }

func (c peerOnly) ReadFrom(p []byte) (int, net.Addr, error) {
	n, err := c.Read(p)
	return n, c.RemoteAddr(), err
}

func (c peerOnly) WriteTo(p []byte, _ net.Addr) (int, error) { return c.Write(p) }

// ReadMsgUDP has other results than quic-go looks for, so that it uses the two above.
func (c peerOnly) ReadMsgUDP() {}

// TestHTTP3: net/http's handlers and clients over HTTP/3, which is over netconn's
// datagrams on both sides (R57).
func TestHTTP3(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		server, client := quicConfigs()
		serverConn, clientConn := listenPacket(t, l, "127.0.0.1:0"), listenPacket(t, l, "127.0.0.1:0")
		body := pattern(1 << 20)
		s := &http3.Server{TLSConfig: http3.ConfigureTLSConfig(server), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("the server got %d bytes of %d, %v", len(got), len(body), err)
			}
			_, _ = w.Write(got)
		})}
		served := make(chan error, 1)
		go func() { served <- s.Serve(serverConn) }()

		qt := &quic.Transport{Conn: clientConn}
		client.NextProtos = []string{http3.NextProtoH3}
		rt := &http3.Transport{
			TLSClientConfig: client,
			Dial: func(ctx context.Context, address string, config *tls.Config, qc *quic.Config) (*quic.Conn, error) {
				to, err := net.ResolveUDPAddr("udp4", address)
				if err != nil {
					return nil, err
				}
				return qt.DialEarly(ctx, to, config, qc)
			},
		}
		ctx := within(t, 30*time.Second)
		for range 3 {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+serverConn.LocalAddr().String()+"/", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			res, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			if err != nil || !bytes.Equal(got, body) || res.ProtoMajor != 3 {
				t.Errorf("%s: %d bytes came back of %d, %v", res.Proto, len(got), len(body), err)
			}
			_ = res.Body.Close()
		}
		_, _, _ = rt.Close(), qt.Close(), s.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
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

func listenPacket(t testing.TB, l *weir.Loop, address string) *netconn.PacketConn {
	t.Helper()
	c, err := netconn.Call(within(t, 20*time.Second), l, func() (*netconn.PacketConn, error) {
		return netconn.ListenPacket(l, "udp4", address)
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
