package layer_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// TestTLSEnds: a close_notify ends the stream with nil, a bare end of stream
// with a truncation (behaviour 48), in each case after everything that came
// before.
func TestTLSEnds(t *testing.T) {
	text := strings.Repeat("said before the end ", 5000)
	for _, c := range []struct {
		name   string
		notify bool
		paused bool
	}{{"close_notify", true, false}, {"bare", false, false}, {"bare, reading paused", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			versions(t, func(t *testing.T, v uint16) {
				server, client := tlsPair(t, v)
				r := newRig(t)
				e := &layertest.Ear{}
				if c.paused {
					e.OnMade = func(tr weir.Transport) {
						tr.PauseReading()
						r.loop.After(50*time.Millisecond, tr.ResumeReading)
					}
				}
				addr := r.listen(func() *layertest.Ear { return e }, layer.TLSServer(server))
				raw := r.dial(addr)
				r.peer(func() error {
					conn := tls.Client(raw, client)
					if _, err := conn.Write([]byte(text)); err != nil {
						return err
					}
					if c.notify {
						return conn.Close()
					}
					return raw.Close()
				})
				r.until("the end", e.Over)
				var cut *layer.TruncatedError
				if got := errors.As(e.Err, &cut); got == c.notify || c.notify && e.Err != nil {
					t.Errorf("lost with %v", e.Err)
				}
				if !c.notify && !errors.Is(e.Err, io.ErrUnexpectedEOF) {
					t.Errorf("%v is not io.ErrUnexpectedEOF", e.Err)
				}
				if string(e.Got) != text {
					t.Errorf("%d of %d bytes came before the end", len(e.Got), len(text))
				}
			})
		})
	}
}

// TestTLSCloseUnanswered: a peer that never answers a close_notify, or never
// did anything, holds up a Close no longer than the timeout (behaviour 53).
func TestTLSCloseUnanswered(t *testing.T) {
	for _, paused := range []bool{false, true} {
		name := "reading"
		if paused {
			name = "paused"
		}
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, v uint16) {
				server, client := tlsPair(t, v)
				r := newRig(t)
				e := &layertest.Ear{OnMade: func(tr weir.Transport) {
					if paused {
						tr.PauseReading()
					}
				}}
				addr := r.listen(func() *layertest.Ear { return e }, layer.TLSServer(server, layer.WithCloseTimeout(60*time.Millisecond)))
				raw := r.dial(addr)
				conn := tls.Client(raw, client)
				r.peer(conn.Handshake)
				r.until("the server", func() bool { return e.Made > 0 })
				before := r.loop.Now()
				_, _ = e.Tr.Write([]byte("the last words"))
				_ = e.Tr.Close()
				r.until("the end", e.Over)
				if took := r.loop.Now().Sub(before); e.Err != nil || took < 60*time.Millisecond || took > 5*time.Second {
					t.Errorf("lost with %v after %v", e.Err, took)
				}
				// What was written arrives all the same, and so does a proper
				// end.
				r.peer(func() error {
					all, err := io.ReadAll(conn)
					if string(all) != "the last words" {
						t.Errorf("the peer got %q", all)
					}
					return err
				})
			})
		})
	}
}

// TestTLSCloseAnswered: if the peer answers, nothing waits for a timeout, and
// the transport below is closed before ConnectionLost (behaviour 55).
func TestTLSCloseAnswered(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		r := newRig(t)
		var below weir.Transport
		keep := func(a layer.Above) layer.Above {
			inner := layertest.Plain(a)
			return layer.Above{Failed: inner.Failed, Make: func(t weir.Transport) weir.Protocol { below = t; return inner.Make(t) }}
		}
		s, c := &layertest.Ear{}, &layertest.Ear{}
		belowGone := false
		s.OnLost = func() { belowGone = below.Protocol() == nil }
		r.pair(s, []layer.Layer{keep, layer.TLSServer(server, layer.WithCloseTimeout(time.Hour))}, c, []layer.Layer{layer.TLS(client, layer.WithCloseTimeout(time.Hour))})
		r.until("the server", func() bool { return s.Made > 0 })
		_ = s.Tr.Close()
		r.until("both ends", func() bool { return s.Over() && c.Over() })
		if s.Err != nil || c.Err != nil || !belowGone {
			t.Errorf("lost with %v and %v; the transport below was closed before: %v", s.Err, c.Err, belowGone)
		}
	})
}

// TestTLSHalfClose: one direction ends by itself and the reply comes, even with
// 1.2 (behaviours 44, 45).
func TestTLSHalfClose(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		r := newRig(t)
		s, c := &layertest.Ear{KeepOpen: true}, &layertest.Ear{KeepOpen: true}
		s.OnEnd = func() { _, _ = s.Tr.Write([]byte("reply to " + string(s.Got))); _ = s.Tr.Close() }
		r.pair(s, []layer.Layer{layer.TLSServer(server)}, c, []layer.Layer{layer.TLS(client)})
		if !c.Tr.CanWriteEOF() {
			t.Fatal("CanWriteEOF is false")
		}
		if err := c.Tr.WriteEOF(); err != nil {
			t.Fatalf("WriteEOF: %v", err)
		}
		_, err := c.Tr.Write([]byte("too late"))
		if !errors.Is(err, weir.ErrWriteAfterEOF) {
			t.Errorf("Write after WriteEOF: %v", err)
		}
		r.until("both ends", func() bool { return s.Over() && c.Ends > 0 })
		if string(c.Got) != "reply to " || s.Err != nil {
			t.Errorf("got %q, lost with %v", c.Got, s.Err)
		}
		_ = c.Tr.Close()
		r.until("the client", c.Over)
		if c.Err != nil {
			t.Errorf("lost with %v", c.Err)
		}
	})
}

// TestTLSSilentEOF: a peer that would hang up is not told that we have sent
// everything, and its answer arrives.
func TestTLSSilentEOF(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		r := newRig(t)
		s, c := &layertest.Ear{}, &layertest.Ear{KeepOpen: true}
		s.OnData = func(p []byte) int {
			r.loop.After(20*time.Millisecond, func() { _, _ = s.Tr.Write([]byte("answer")); _ = s.Tr.Close() })
			return len(p)
		}
		c.OnMade = func(tr weir.Transport) {
			_, _ = tr.Write([]byte("question"))
			if err := tr.WriteEOF(); err != nil {
				t.Error(err)
			}
		}
		r.pair(s, []layer.Layer{layer.TLSServer(server)}, c, []layer.Layer{layer.TLS(client, layer.WithSilentEOF())})
		r.until("the end", func() bool { return s.Over() && c.Over() })
		if string(c.Got) != "answer" || s.Ends != 0 || s.Err != nil || c.Err != nil {
			t.Errorf("got %q; the server heard %d ends; lost with %v and %v", c.Got, s.Ends, s.Err, c.Err)
		}
	})
}

// TestTLSReset: a reset arrives as a reset, with TLS or without.
func TestTLSReset(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	r := newRig(t)
	e := &layertest.Ear{}
	addr := r.listen(func() *layertest.Ear { return e }, layer.TLSServer(server))
	raw := r.dial(addr)
	conn := tls.Client(raw, client)
	r.peer(func() error {
		_, err := conn.Write([]byte("x"))
		return err
	})
	r.until("the server", func() bool { return len(e.Got) > 0 })
	_ = raw.(*net.TCPConn).SetLinger(0)
	_ = raw.Close()
	r.until("the end", e.Over)
	if !errors.Is(e.Err, syscall.ECONNRESET) {
		t.Errorf("lost with %v", e.Err)
	}
}

// grind is a layer that hands up each byte by itself.
func grind(a layer.Above) layer.Above {
	return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
		b := &grinder{}
		return b.Init(b, "grind", a)
	}}
}

type grinder struct{ layer.Base }

func (g *grinder) DataReceived(p []byte) (int, error) {
	for i := range p {
		g.Deliver(p[i : i+1])
	}
	return len(p), nil
}

// TestTLSChopped: many records in one read and one byte per read lead to the
// same calls, and what arrives with the last handshake message is delivered
// after ConnectionMade (behaviours 49, 51, 52).
func TestTLSChopped(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		var sizes [2][]int
		for i, below := range []layer.Layer{layertest.Plain, grind} {
			r := newRig(t)
			s, c := &layertest.Ear{}, &layertest.Ear{}
			speak := func(tr weir.Transport) {
				for n := range 100 {
					_, _ = tr.Write(make([]byte, 1+n*7))
				}
				_, _ = tr.Write(make([]byte, 50_000))
				_ = tr.Close()
			}
			s.OnMade = speak
			c.OnData = func(p []byte) int {
				if c.Made != 1 {
					t.Error("bytes before ConnectionMade")
				}
				return len(p)
			}
			r.pair(s, []layer.Layer{below, layer.TLSServer(server)}, c, []layer.Layer{below, layer.TLS(client)})
			r.until("the end", func() bool { return s.Over() && c.Over() })
			sizes[i] = c.Sizes
			if len(c.Got) == 0 || s.Err != nil || c.Err != nil {
				t.Errorf("%d bytes, lost with %v and %v", len(c.Got), s.Err, c.Err)
			}
		}
		if !slices.Equal(sizes[0], sizes[1]) {
			t.Errorf("the calls differ: %v, byte by byte %v", sizes[0], sizes[1])
		}
	})
}

// TestTLSEarlyBytes: a client's bytes arrive in the same segment as its
// Finished.
func TestTLSEarlyBytes(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		r := newRig(t)
		order := ""
		s, c := &layertest.Ear{}, &layertest.Ear{}
		s.OnMade = func(weir.Transport) { order += "made " }
		s.OnData = func(p []byte) int { order += string(p); return len(p) }
		c.OnMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("data")); _ = tr.Close() }
		r.pair(s, []layer.Layer{layer.TLSServer(server)}, c, []layer.Layer{layer.TLS(client)})
		r.until("the end", func() bool { return s.Over() && c.Over() })
		if order != "made data" {
			t.Errorf("order: %q", order)
		}
	})
}
