package utp_test

import (
	"errors"
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

// TestTenantConnections: a connection counts for its tenant although it has no socket of its
// own, on either side. One that the tenant has no room for is refused: a listener reports
// it, its peer gets a reset, and a connect fails with the reason (R80).
func TestTenantConnections(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	la, lb := s.Host("a").Loop(), s.Host("b").Loop()
	limited := func(l *weir.Loop, n int) (*weir.Tenant, utp.Config) {
		tn := l.NewTenant("one")
		if err := tn.SetLimits(weir.TenantLimits{Connections: n}); err != nil {
			t.Fatal(err)
		}
		return tn, utp.Config{Options: []weir.StreamOption{weir.WithTenant(tn)}}
	}
	ta, ca := limited(la, 2)
	tb, cb := limited(lb, 1)
	made := 0
	ln, err := utp.Listen(la, "udp4", s.Host("a").Addr(aPort), func(weir.Transport) weir.Protocol {
		made++
		return weir.NopProtocol{}
	}, ca)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(cfg utp.Config) *ear {
		e := &ear{}
		utp.Connect(lb, "udp4", s.Host("a").Addr(aPort), e, cfg)
		return e
	}
	ears := [...]*ear{dial(cb), dial(utp.Config{})}
	s.Until("the connections", func() bool { return made == 2 && ears[0].made+ears[1].made == 2 })
	if n, m := ta.Stats().Connections, tb.Stats().Connections; n != 2 || m != 1 {
		t.Errorf("%d and %d connections are counted, want 2 and 1", n, m)
	}

	third := dial(utp.Config{})
	s.Until("the refusal", func() bool { return third.over() })
	var budget *weir.BudgetError
	if st := ta.Stats(); made != 2 || st.Connections != 2 || st.Refused != 1 || ln.Conns() != 2 || ln.Refused() != 1 {
		t.Errorf("%d were made; the tenant counts %+v, the listener %d and %d", made, st, ln.Conns(), ln.Refused())
	}
	if len(s.Failures) != 1 || !errors.As(s.Failures[0], &budget) || budget.Tenant != "one" || budget.Limit != 2 {
		t.Errorf("%v was reported", s.Failures)
	}
	s.Failures = nil

	if err := ta.SetLimits(weir.TenantLimits{}); err != nil {
		t.Fatal(err)
	}
	fourth := dial(cb)
	s.Until("the failure", func() bool { return fourth.over() })
	if !errors.As(fourth.failed, &budget) || budget.Limit != 1 || fourth.made != 0 {
		t.Errorf("connected %d times, failed with %v", fourth.made, fourth.failed)
	}
	if n := tb.Stats().Connections; n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	for _, e := range ears {
		_ = e.t.Close()
	}
	s.Until("the ends", func() bool { return ears[0].lost+ears[1].lost == 2 })
	_ = ln.Close()
	if err := s.RunFor(time.Minute); err != nil {
		t.Fatal(err)
	}
	if n, m := ta.Stats().Connections, tb.Stats().Connections; n != 0 || m != 0 {
		t.Errorf("%d and %d connections are counted after all have ended", n, m)
	}
	ta.Close(nil)
	tb.Close(nil)
}
