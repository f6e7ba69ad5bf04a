package utp_test

import (
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/utp"
	"github.com/weir-io/weir/weirtest"
)

// TestCloseParked: an endpoint that waits for its tenant's turn receives again when the
// loop is closed, so that acknowledgements come and all that was written arrives (G2).
func TestCloseParked(t *testing.T) {
	for _, backend := range weir.Backends() {
		t.Run(backend, func(t *testing.T) {
			l, far := parkedLoop(t, backend), parkedLoop(t, backend)
			const size = 300 << 10
			got := make(chan int, 1)
			sum := 0
			a, err := utp.Open(far, "udp4", "127.0.0.1:0", utp.Config{ReceiveWindow: 32 << 10})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Listen(func(weir.Transport) weir.Protocol {
				return weir.DataFunc(func(p []byte) (int, error) {
					if sum += len(p); sum == size {
						got <- sum
					}
					return len(p), nil
				})
			}); err != nil {
				t.Fatal(err)
			}
			go func() { _ = far.Run() }()
			defer func() {
				far.Stop()
				_ = far.Shutdown(0)
			}()

			tn, busy := l.NewTenant("owing"), l.NewTenant("busy")
			if err := tn.SetShare(1); err != nil {
				t.Fatal(err)
			}
			if err := busy.SetShare(1000); err != nil {
				t.Fatal(err)
			}
			var again func()
			again = func() { busy.Soon(again) }
			busy.Soon(again)
			b, err := utp.Open(l, "udp4", "127.0.0.1:0", utp.Config{SendWindow: 32 << 10}, weir.WithTenant(tn))
			if err != nil {
				t.Fatal(err)
			}
			p := &writer{}
			b.Dial(a.Packets().Local().IP, p)
			weirtest.Until(t, l, "the connection", func() bool { return p.t != nil })
			_, _ = p.t.Write(make([]byte, size))
			for range 20 { // it receives, and is then parked
				if err := l.Turn(time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			select {
			case <-got:
			case <-time.After(20 * time.Second):
				t.Error("not everything arrived")
			}
		})
	}
}

func parkedLoop(t *testing.T, backend string) *weir.Loop {
	t.Helper()
	l, err := weir.NewLoop(weir.WithBackendName(backend), weir.WithErrorHandler(func(error) {}))
	if err != nil || l.Backend().Name != backend {
		t.Skipf("the system refuses %s: %v", backend, err)
	}
	return l
}

type writer struct {
	weir.NopProtocol
	t weir.Transport
}

func (p *writer) ConnectionMade(t weir.Transport) { p.t = t }
