package layer_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
	"github.com/weir-io/weir/layer/zstd"
	"github.com/weir-io/weir/relay"
)

// TestRelayDeliversBeforeReset: what a side had sent before it was reset
// reaches a slow client through every stack, and then the client learns that
// the stream did not end regularly.
func TestRelayDeliversBeforeReset(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	idle := layer.Idle(layer.IdleConfig{Idle: time.Minute})
	slow := layer.RateLimit(layer.Rate{}, layer.Rate{PerSecond: 1 << 20})
	squeezed, err := zstd.New(zstd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, stack := range []struct {
		name           string
		server, client []layer.Layer
	}{
		{"plain", nil, nil},
		{"idle", []layer.Layer{idle}, nil},
		{"rate limit", []layer.Layer{slow, idle}, nil},
		{"TLS", []layer.Layer{layer.TLSServer(server)}, []layer.Layer{layer.TLS(client)}},
		{"TLS in TLS", []layer.Layer{layer.TLSServer(server), idle, layer.TLSServer(server)}, []layer.Layer{layer.TLS(client), layer.TLS(client)}},
		{"WebSocket", []layer.Layer{ws.Server(ws.Config{})}, []layer.Layer{ws.Client(ws.Config{})}},
		{"zstd", []layer.Layer{squeezed}, []layer.Layer{squeezed}},
	} {
		t.Run(stack.name, func(t *testing.T) {
			for _, name := range weir.Backends() {
				t.Run(name, func(t *testing.T) { relayReset(t, name, stack.server, stack.client) })
			}
		})
	}
}

func relayReset(t *testing.T, backend string, server, client []layer.Layer) {
	l, err := weir.NewLoop(weir.WithBackendName(backend))
	if err != nil {
		t.Skip(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	there, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	sent := make([]byte, 100<<10)
	for i := range sent {
		sent[i] = byte(i * i >> 7)
	}
	gone := make(chan error, 1)
	go func() {
		c, err := there.Accept()
		if err != nil {
			gone <- err
			return
		}
		_, err = c.Read(make([]byte, 1))
		if err == nil {
			_, err = c.Write(sent)
		}
		if err == nil {
			err = acknowledged(c.(*net.TCPConn))
		}
		gone <- errors.Join(err, c.(*net.TCPConn).SetLinger(0), c.Close())
	}()
	var res *relay.Result
	small := weir.WithSocketBuffers(8<<10, 8<<10)
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(func(weir.Transport) weir.Protocol {
		r := relay.New(relay.Config{Done: func(r relay.Result) { res = &r }})
		l.Connect("tcp", there.Addr().String(), r.Protocol(relay.B))
		return r.Protocol(relay.A)
	}, server...), small)
	if err != nil {
		t.Fatal(err)
	}
	c := &slowReader{}
	l.Connect("tcp", ln.Addr().String(), layer.Client(c, client...), small)
	turns := func(what string, done func() bool) {
		t.Helper()
		late := false
		bound := l.After(30*time.Second, func() { late = true })
		defer bound.Stop()
		for !done() {
			if late {
				t.Fatalf("waited in vain for %s; the client has %d bytes, lost %v: %v; the relay: %+v", what, len(c.got), c.lost, c.err, res)
			}
			if err := l.Turn(5 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
	}
	turns("the reset", func() bool {
		select {
		case err := <-gone:
			if err != nil {
				t.Fatal(err)
			}
			return true
		default:
			return false
		}
	})
	noticed := false
	l.After(100*time.Millisecond, func() { noticed = true })
	turns("the relay to notice", func() bool { return noticed })
	if c.lost || res != nil && len(client) == 0 && res.Bytes[relay.B] != int64(len(sent)) {
		t.Fatalf("the client is lost already, %v; the relay: %+v", c.err, res)
	}
	c.t.ResumeReading()
	turns("the client's loss", func() bool { return c.lost && res != nil })
	if !bytes.Equal(c.got, sent) || res.Bytes[relay.B] != int64(len(sent)) {
		t.Errorf("the client got %d of %d bytes, or others; the relay: %+v", len(c.got), len(sent), res)
	}
	if c.err == nil || c.ended {
		t.Errorf("the client was told of an end: %v, %v", c.ended, c.err)
	}
}

// slowReader reads only when it is told to.
type slowReader struct {
	t     weir.Transport
	got   []byte
	ended bool
	lost  bool
	err   error
}

func (s *slowReader) ConnectionMade(t weir.Transport) {
	s.t = t
	t.PauseReading()
	_, _ = t.Write([]byte("x"))
}

func (s *slowReader) DataReceived(p []byte) (int, error) {
	s.got = append(s.got, p...)
	return len(p), nil
}

func (s *slowReader) EOFReceived(int) (bool, error) {
	s.ended = true
	return true, nil
}

func (s *slowReader) ConnectionLost(err error) { s.lost, s.err = true, err }
