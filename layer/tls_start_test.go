package layer_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// starter sends a line in the clear and then starts TLS.
func starter(e *layertest.Ear, tlsLayer layer.Layer, failed *error) *layertest.Ear {
	clear := &layertest.Ear{}
	clear.OnData = func(p []byte) int {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			return 0
		}
		layer.Start(clear.Tr, layer.Above{
			Make:   func(weir.Transport) weir.Protocol { return e },
			Failed: func(err *weir.AttemptError) { *failed = err },
		}, tlsLayer)
		return i + 1
	}
	return clear
}

// TestSTARTTLS: TLS starts mid-stream on both sides (R39, behaviour 54).
func TestSTARTTLS(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		r := newRig(t)
		var failed error
		s, c := &layertest.Ear{}, &layertest.Ear{}
		s.OnData = func(p []byte) int { _, _ = s.Tr.Write(bytes.ToUpper(p)); return len(p) }
		c.OnMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("secret")) }
		inClear := starter(s, layer.TLSServer(server), &failed)
		inClear.OnMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("ready\n")) }
		fromClear := starter(c, layer.TLS(client), &failed)
		fromClear.OnMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("starttls\n")) }
		r.pair(inClear, nil, fromClear, nil)
		r.until("the answer", func() bool { return string(c.Got) == "SECRET" })
		if failed != nil || string(inClear.Got) != "starttls\n" {
			t.Errorf("failed: %v; in the clear: %q", failed, inClear.Got)
		}
		_ = c.Tr.Close()
		r.until("the end", func() bool { return s.Over() && c.Over() })
		if s.Err != nil || c.Err != nil || inClear.Over() || fromClear.Over() {
			t.Errorf("lost with %v and %v", s.Err, c.Err)
		}
	})
}

// TestSTARTTLSPipelined: what a client sends in the clear after its request to
// start TLS goes to TLS, which refuses it; it never reaches the protocol above.
func TestSTARTTLSPipelined(t *testing.T) {
	server, _ := tlsPair(t, tls.VersionTLS13)
	r := newRig(t)
	var failed error
	s := &layertest.Ear{}
	clear := starter(s, layer.TLSServer(server), &failed)
	addr := r.listen(func() *layertest.Ear { return clear })
	raw := r.dial(addr)
	_, _ = raw.Write([]byte("starttls\nMAIL FROM:<mallory>\n"))
	r.until("the refusal", func() bool { return failed != nil })
	var record tls.RecordHeaderError
	if !errors.As(failed, &record) || s.Made > 0 || string(clear.Got) != "starttls\n" {
		t.Errorf("failed: %v; in the clear %q, in TLS %q", failed, clear.Got, s.Got)
	}
}

// TestStopTLS: TLS ends and the connection goes on in the clear; what follows
// the close_notify in the same segment is part of the clear text (R39).
func TestStopTLS(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		r := newRig(t)
		s, c := &layertest.Ear{KeepOpen: true}, &layertest.Ear{KeepOpen: true}
		sAfter, cAfter := &layertest.Ear{}, &layertest.Ear{}
		var sBelow weir.Transport
		catch := func(a layer.Above) layer.Above {
			inner := layertest.Plain(a)
			return layer.Above{Failed: inner.Failed, Make: func(t weir.Transport) weir.Protocol { sBelow = t; return inner.Make(t) }}
		}
		sAfter.OnData = func(p []byte) int { _, _ = sAfter.Tr.Write(bytes.ToUpper(p)); return len(p) }
		sAfter.OnMade = func(weir.Transport) {
			if s.Lost != 1 {
				t.Error("the clear begins before TLS has ended")
			}
		}
		s.OnEnd = func() {
			if err := layer.StopTLS(s.Tr, sAfter); err != nil {
				t.Error(err)
			}
		}
		cAfter.OnMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("in the clear")) }
		r.pair(s, []layer.Layer{catch, layer.TLSServer(server)}, c, []layer.Layer{layer.TLS(client)})
		r.until("the server", func() bool { return s.Made > 0 })
		text := bytes.Repeat([]byte("in TLS "), 50_000)
		_, _ = c.Tr.Write(text)
		if err := layer.StopTLS(c.Tr, cAfter); err != nil {
			t.Fatal(err)
		}
		if err := layer.StopTLS(c.Tr, cAfter); !errors.Is(err, layer.ErrNoTLS) {
			t.Errorf("stopped twice: %v", err)
		}
		r.until("the answer", func() bool { return string(cAfter.Got) == "IN THE CLEAR" })
		if !bytes.Equal(s.Got, text) || s.Err != nil || c.Err != nil || s.Lost != 1 || c.Lost != 1 || string(sAfter.Got) != "in the clear" {
			t.Errorf("in TLS %d of %d bytes, lost with %v and %v; in the clear %q", len(s.Got), len(text), s.Err, c.Err, sAfter.Got)
		}
		_ = cAfter.Tr.Close()
		r.until("the end", func() bool { return sAfter.Over() && cAfter.Over() && sBelow.Protocol() == nil })
		if sAfter.Err != nil || cAfter.Err != nil {
			t.Errorf("lost with %v and %v", sAfter.Err, cAfter.Err)
		}
	})
}

// TestStopTLSUnanswered: if the peer does not agree, the connection is lost.
func TestStopTLSUnanswered(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	r := newRig(t)
	s, c, after := &layertest.Ear{KeepOpen: true}, &layertest.Ear{}, &layertest.Ear{}
	r.pair(s, []layer.Layer{layer.TLSServer(server)}, c, []layer.Layer{layer.TLS(client, layer.WithCloseTimeout(50*time.Millisecond))})
	if err := layer.StopTLS(c.Tr, after); err != nil {
		t.Fatal(err)
	}
	r.until("the end", c.Over)
	if !errors.Is(c.Err, layer.ErrTimeout) || after.Made > 0 {
		t.Errorf("lost with %v, made %d", c.Err, after.Made)
	}
	if err := layer.StopTLS(c.Tr, after); !errors.Is(err, weir.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestTLSEverywhere: TLS over a UNIX socket, a pair of sockets, two pipes, and a
// terminal (behaviour 55).
func TestTLSEverywhere(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	for _, name := range weir.Backends() {
		for _, over := range []string{"unix", "pair", "pipes", "terminal"} {
			t.Run(name+"/"+over, func(t *testing.T) {
				r := newRig(t, weir.WithBackendName(name))
				s, c := &layertest.Ear{}, &layertest.Ear{}
				s.OnData = func(p []byte) int { _, _ = s.Tr.Write(p); return len(p) }
				text := bytes.Repeat([]byte("there and back "), 20_000)
				c.OnMade = func(tr weir.Transport) { _, _ = tr.Write(text) }
				srv := layer.Server(func(weir.Transport) weir.Protocol { return s }, layer.TLSServer(server))
				cli := layer.Server(func(weir.Transport) weir.Protocol { return c }, layer.TLS(client))
				var err error
				switch over {
				case "unix":
					path := filepath.Join(t.TempDir(), "s")
					_, err = r.loop.Listen("unix", path, srv)
					if err == nil {
						r.loop.Connect("unix", path, layer.Client(c, layer.TLS(client)))
					}
				case "pair":
					_, _, err = r.loop.SocketPair(srv, cli)
				case "pipes":
					err = pipes(r, srv, cli)
				case "terminal":
					err = terminal(r, srv, cli)
				}
				if err != nil {
					t.Fatal(err)
				}
				r.until("the echo", func() bool { return len(c.Got) == len(text) })
				_ = c.Tr.Close()
				r.until("the end", func() bool { return s.Over() && c.Over() && r.loop.Connections() == 0 })
				if !bytes.Equal(c.Got, text) || s.Err != nil || c.Err != nil {
					t.Errorf("lost with %v and %v", s.Err, c.Err)
				}
			})
		}
	}
}
