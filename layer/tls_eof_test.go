package layer_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// asking writes a question and ends its direction at once.
func asking(t *testing.T) *layertest.Ear {
	c := &layertest.Ear{KeepOpen: true}
	c.OnMade = func(tr weir.Transport) {
		_, _ = tr.Write([]byte("question"))
		if err := tr.WriteEOF(); err != nil {
			t.Error(err)
		}
	}
	return c
}

// TestTLSReplyBeforeEOFKnown: our own servers are told of the end at once, even
// when the session is resumed, and with a file of authorities that is followed
// (behaviour 44).
func TestTLSReplyBeforeEOFKnown(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		s0, c0 := layer.TLSServer(server), layer.TLS(client, layer.WithReplyBeforeEOF(time.Hour))
		for i := range 2 {
			r := newRig(t)
			s, c := &layertest.Ear{KeepOpen: true}, asking(t)
			s.OnEnd = func() { _, _ = s.Tr.Write([]byte("reply to " + string(s.Got))); _ = s.Tr.Close() }
			resumed := false
			made := c.OnMade
			c.OnMade = func(tr weir.Transport) {
				state, _ := weir.As[interface{ ConnectionState() tls.ConnectionState }](tr)
				resumed = state.ConnectionState().DidResume
				made(tr)
			}
			r.pair(s, []layer.Layer{s0}, c, []layer.Layer{c0})
			r.until("the reply", func() bool { return s.Over() && c.Ends > 0 })
			if string(c.Got) != "reply to question" || s.Err != nil || resumed != (i == 1) {
				t.Errorf("connection %d: got %q, lost with %v, resumed %v", i, c.Got, s.Err, resumed)
			}
			_ = c.Tr.Close()
			r.until("the end", c.Over)
		}
	})
}

// TestTLSReplyBeforeEOF: a server that would hang up is told of the end when it
// has replied, or has been silent for long enough.
func TestTLSReplyBeforeEOF(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		for _, silence := range []time.Duration{time.Hour, 50 * time.Millisecond} {
			t.Run(fmt.Sprint(silence), func(t *testing.T) {
				server, client := tlsPair(t, v)
				r := newRig(t)
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = ln.Close() }()
				c := asking(t)
				r.loop.Connect("tcp", ln.Addr().String(), layer.Client(c, layer.TLS(client, layer.WithReplyBeforeEOF(silence))))
				r.peer(func() error {
					raw, err := ln.Accept()
					if err != nil {
						return err
					}
					conn := tls.Server(raw, server)
					defer func() { _ = conn.Close() }()
					buf := make([]byte, 8)
					if _, err := io.ReadFull(conn, buf); err != nil {
						return err
					}
					began := time.Now()
					if silence == time.Hour {
						_ = conn.SetReadDeadline(began.Add(50 * time.Millisecond))
						if _, err := conn.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
							return fmt.Errorf("before the reply: %w", errors.Join(err, errors.New("it should be silent")))
						}
					} else {
						_ = conn.SetReadDeadline(began.Add(10 * time.Second))
						if _, err := conn.Read(buf); !errors.Is(err, io.EOF) {
							return fmt.Errorf("after the silence: %w", errors.Join(err, errors.New("it should have ended")))
						}
					}
					_, err = conn.Write([]byte("reply"))
					return err
				})
				r.until("the end of the reply", func() bool { return c.Ends > 0 })
				_ = c.Tr.Close()
				r.until("the end", c.Over)
				if string(c.Got) != "reply" || c.Err != nil {
					t.Errorf("got %q, lost with %v", c.Got, c.Err)
				}
			})
		}
	})
}
