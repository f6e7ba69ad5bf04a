package layer_test

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// TestTLSHandshakesFair: half hellos from one address, however many, keep out
// no peer from another, and give way without having to stall for a second first
// (S9).
func TestTLSHandshakesFair(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	r := newRig(t)
	const places, half, honest = 8, 200, 20
	addr := r.listen(func() *layertest.Ear { return &layertest.Ear{} }, layer.TLSServer(server, layer.WithHandshakeCap(places), layer.WithHandshakeTimeout(time.Hour)))
	lost := 0
	transports := make([]weir.Transport, half)
	for i := range transports {
		h := hello(t)
		r.loop.Connect("tcp", addr, silent{hello: h[:len(h)/2], lost: &lost, tr: &transports[i]})
	}
	// Half hellos have taken every place by the time one of them is ended for
	// stalling.
	r.until("one that stalled", func() bool { return len(r.reported) > 0 })
	r.reported = nil
	ears := make([]*layertest.Ear, honest)
	for i := range ears {
		ears[i] = &layertest.Ear{}
		r.loop.Connect("tcp", addr, layer.Client(ears[i], layer.TLS(client)), weir.WithLocalAddr(netip.MustParseAddrPort("127.0.0.2:0")))
	}
	r.until("the honest ones", func() bool {
		n := 0
		for _, e := range ears {
			if e.Failed != nil {
				t.Fatal(e.Failed)
			}
			n += e.Made
		}
		return n == honest
	})
	crowded := 0
	for _, err := range r.reported {
		if errors.Is(err, layer.ErrCrowded) {
			crowded++
		}
	}
	if crowded == 0 {
		t.Errorf("none gave way; reported %v", r.reported)
	}
	if lost == half {
		t.Error("none of the half hellos is left")
	}
	for _, e := range ears {
		_ = e.Tr.Close()
	}
	for _, tr := range transports {
		tr.Abort()
	}
	r.until("all gone", func() bool { return r.loop.Connections() == 0 })
}

// TestTLSTricklesStall: a handshake moves by whole records, so one whose peer
// sends a byte now and then also gives way to those that wait (S9).
func TestTLSTricklesStall(t *testing.T) {
	server, client := tlsPair(t, tls.VersionTLS13)
	r := newRig(t)
	addr := r.listen(func() *layertest.Ear { return &layertest.Ear{} }, layer.TLSServer(server, layer.WithHandshakeCap(2), layer.WithHandshakeTimeout(time.Hour)))
	lost := 0
	transports := make([]weir.Transport, 2)
	h := hello(t)
	for i := range transports {
		r.loop.Connect("tcp", addr, silent{hello: h[:9], lost: &lost, tr: &transports[i]})
	}
	sent := 9
	every := r.loop.NewTimer(func() {
		for _, tr := range transports {
			if tr != nil && sent < len(h)-1 {
				_, _ = tr.Write(h[sent : sent+1])
			}
		}
		sent++
	})
	every.Repeat(100 * time.Millisecond)
	r.until("bytes", func() bool { return sent > 10 })
	c := &layertest.Ear{}
	r.loop.Connect("tcp", addr, layer.Client(c, layer.TLS(client)))
	r.until("the third", func() bool { return c.Made > 0 || c.Failed != nil })
	every.Stop()
	if c.Failed != nil || sent >= len(h)-1 || len(r.reported) == 0 || !errors.Is(r.reported[0], layer.ErrStalled) {
		t.Errorf("%v after %d bytes; reported %v", c.Failed, sent, r.reported)
	}
	_ = c.Tr.Close()
	for _, tr := range transports {
		tr.Abort()
	}
	r.until("all gone", func() bool { return r.loop.Connections() == 0 })
}
