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
)

// starter speaks a line in the clear and then starts TLS.
func starter(e *ear, tlsLayer layer.Layer, failed *error) *ear {
	clear := &ear{}
	clear.onData = func(p []byte) int {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			return 0
		}
		layer.Start(clear.tr, layer.Above{
			Make:   func(weir.Transport) weir.Protocol { return e },
			Failed: func(err *weir.AttemptError) { *failed = err },
		}, tlsLayer)
		return i + 1
	}
	return clear
}

// TestSTARTTLS: TLS starts in mid-stream on both sides (R39, behaviour 54).
func TestSTARTTLS(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		r := newRig(t)
		var failed error
		s, c := &ear{}, &ear{}
		s.onData = func(p []byte) int { _, _ = s.tr.Write(bytes.ToUpper(p)); return len(p) }
		c.onMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("secret")) }
		inClear := starter(s, layer.TLSServer(server), &failed)
		inClear.onMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("ready\n")) }
		fromClear := starter(c, layer.TLS(client), &failed)
		fromClear.onMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("starttls\n")) }
		r.pair(inClear, nil, fromClear, nil)
		r.until("the answer", func() bool { return string(c.got) == "SECRET" })
		if failed != nil || string(inClear.got) != "starttls\n" {
			t.Errorf("failed: %v; in the clear: %q", failed, inClear.got)
		}
		_ = c.tr.Close()
		r.until("the end", func() bool { return s.over() && c.over() })
		if s.err != nil || c.err != nil || inClear.over() || fromClear.over() {
			t.Errorf("lost with %v and %v", s.err, c.err)
		}
	})
}

// TestSTARTTLSPipelined: what a client sends in the clear behind its request to
// start TLS goes to TLS, which refuses it; it never reaches the protocol above.
func TestSTARTTLSPipelined(t *testing.T) {
	server, _ := tlsPair(t, tls.VersionTLS13)
	r := newRig(t)
	var failed error
	s := &ear{}
	clear := starter(s, layer.TLSServer(server), &failed)
	addr := r.listen(func() *ear { return clear })
	raw := r.dial(addr)
	_, _ = raw.Write([]byte("starttls\nMAIL FROM:<mallory>\n"))
	r.until("the refusal", func() bool { return failed != nil })
	var record tls.RecordHeaderError
	if !errors.As(failed, &record) || s.made > 0 || string(clear.got) != "starttls\n" {
		t.Errorf("failed: %v; in the clear %q, in TLS %q", failed, clear.got, s.got)
	}
}

// TestStopTLS: TLS ends and the connection goes on in the clear; what follows the
// close_notify in the same segment belongs to what comes after (R39).
func TestStopTLS(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		server, client := tlsPair(t, v)
		r := newRig(t)
		s, c := &ear{keepOpen: true}, &ear{keepOpen: true}
		sAfter, cAfter := &ear{}, &ear{}
		var sBelow weir.Transport
		catch := func(a layer.Above) layer.Above {
			inner := plain(a)
			return layer.Above{Failed: inner.Failed, Make: func(t weir.Transport) weir.Protocol { sBelow = t; return inner.Make(t) }}
		}
		sAfter.onData = func(p []byte) int { _, _ = sAfter.tr.Write(bytes.ToUpper(p)); return len(p) }
		sAfter.onMade = func(weir.Transport) {
			if s.lost != 1 {
				t.Error("the clear begins before TLS has ended")
			}
		}
		s.onEnd = func() {
			if err := layer.StopTLS(s.tr, sAfter); err != nil {
				t.Error(err)
			}
		}
		cAfter.onMade = func(tr weir.Transport) { _, _ = tr.Write([]byte("in the clear")) }
		r.pair(s, []layer.Layer{catch, layer.TLSServer(server)}, c, []layer.Layer{layer.TLS(client)})
		r.until("the server", func() bool { return s.made > 0 })
		text := bytes.Repeat([]byte("in TLS "), 50_000)
		_, _ = c.tr.Write(text)
		if err := layer.StopTLS(c.tr, cAfter); err != nil {
			t.Fatal(err)
		}
		if err := layer.StopTLS(c.tr, cAfter); !errors.Is(err, layer.ErrNoTLS) {
			t.Errorf("stopped twice: %v", err)
		}
		r.until("the answer", func() bool { return string(cAfter.got) == "IN THE CLEAR" })
		if !bytes.Equal(s.got, text) || s.err != nil || c.err != nil || s.lost != 1 || c.lost != 1 || string(sAfter.got) != "in the clear" {
			t.Errorf("in TLS %d of %d bytes, lost with %v and %v; in the clear %q", len(s.got), len(text), s.err, c.err, sAfter.got)
		}
		_ = cAfter.tr.Close()
		r.until("the end", func() bool { return sAfter.over() && cAfter.over() && sBelow.Protocol() == nil })
		if sAfter.err != nil || cAfter.err != nil {
			t.Errorf("lost with %v and %v", sAfter.err, cAfter.err)
		}
	})
}

// TestStopTLSUnanswered: a peer that does not agree loses the connection.
func TestStopTLSUnanswered(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	r := newRig(t)
	s, c, after := &ear{keepOpen: true}, &ear{}, &ear{}
	r.pair(s, []layer.Layer{layer.TLSServer(server)}, c, []layer.Layer{layer.TLS(client, layer.WithCloseTimeout(50*time.Millisecond))})
	if err := layer.StopTLS(c.tr, after); err != nil {
		t.Fatal(err)
	}
	r.until("the end", c.over)
	if !errors.Is(c.err, layer.ErrTimeout) || after.made > 0 {
		t.Errorf("lost with %v, made %d", c.err, after.made)
	}
	if err := layer.StopTLS(c.tr, after); !errors.Is(err, weir.ErrClosed) {
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
				s, c := &ear{}, &ear{}
				s.onData = func(p []byte) int { _, _ = s.tr.Write(p); return len(p) }
				text := bytes.Repeat([]byte("there and back "), 20_000)
				c.onMade = func(tr weir.Transport) { _, _ = tr.Write(text) }
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
				r.until("the echo", func() bool { return len(c.got) == len(text) })
				_ = c.tr.Close()
				r.until("the end", func() bool { return s.over() && c.over() && r.loop.Connections() == 0 })
				if !bytes.Equal(c.got, text) || s.err != nil || c.err != nil {
					t.Errorf("lost with %v and %v", s.err, c.err)
				}
			})
		}
	}
}
