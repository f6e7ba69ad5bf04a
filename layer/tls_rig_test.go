package layer_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// rig is a loop and what was reported to it.
type rig struct {
	t        *testing.T
	loop     *weir.Loop
	reported []error
}

func newRig(t *testing.T, opts ...weir.LoopOption) *rig {
	t.Helper()
	r := &rig{t: t}
	l, err := weir.NewLoop(append(opts, weir.WithErrorHandler(func(err error) { r.reported = append(r.reported, err) }))...)
	if err != nil {
		t.Fatal(err)
	}
	r.loop = l
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// patience bounds how long a test waits. The race detector needs half a minute
// for what takes a few hundredths of a second without it.
const patience = 2 * time.Minute

// until turns the loop until cond holds.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	late := false
	bound := r.loop.After(patience, func() { late = true })
	defer bound.Stop()
	for !cond() {
		if late {
			r.t.Fatalf("waited in vain for: %s; reported: %v", what, r.reported)
		}
		wait := 5 * time.Millisecond
		if d, ok := r.loop.Next(); ok && d == 0 {
			wait = 0
		}
		if err := r.loop.Turn(wait); err != nil {
			r.t.Fatal(err)
		}
	}
}

// pair connects two ears by a socket, each above its own layers.
func (r *rig) pair(server *layertest.Ear, serverLayers []layer.Layer, client *layertest.Ear, clientLayers []layer.Layer) {
	r.t.Helper()
	// A listener that closes resets what it has not accepted.
	accepted := false
	factory := layer.Server(func(weir.Transport) weir.Protocol { return server }, serverLayers...)
	ln, err := r.loop.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
		accepted = true
		return factory(t)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.loop.Connect("tcp", ln.Addr().String(), layer.Client(client, clientLayers...))
	r.until("a client that is connected or refused", func() bool { return accepted && client.Made > 0 || client.Failed != nil })
	_ = ln.Close()
}

// listen makes a server of ears for blocking peers.
func (r *rig) listen(f func() *layertest.Ear, layers ...layer.Layer) string {
	r.t.Helper()
	ln, err := r.loop.Listen("tcp", "127.0.0.1:0", layer.Server(func(weir.Transport) weir.Protocol { return f() }, layers...))
	if err != nil {
		r.t.Fatal(err)
	}
	return ln.Addr().String()
}

// peer runs f, which blocks, and keeps the loop turning meanwhile.
func (r *rig) peer(f func() error) {
	r.t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	var err error
	over := false
	r.until("the peer", func() bool {
		select {
		case err = <-done:
			over = true
		default:
		}
		return over
	})
	if err != nil {
		r.t.Fatalf("peer: %v; reported: %v", err, r.reported)
	}
}

// dial makes a blocking connection; it is closed when the test ends.
func (r *rig) dial(addr string) net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// versions runs a test with TLS 1.2 and with 1.3.
func versions(t *testing.T, f func(t *testing.T, version uint16)) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(v), func(t *testing.T) { f(t, v) })
	}
}

// stateOf returns the TLS state of a transport.
func stateOf(t *testing.T, tr weir.Transport) tls.ConnectionState {
	t.Helper()
	s, ok := weir.As[interface{ ConnectionState() tls.ConnectionState }](tr)
	if !ok {
		t.Fatalf("no TLS state in %s", fmt.Sprint(tr.RemoteAddr()))
	}
	return s.ConnectionState()
}
