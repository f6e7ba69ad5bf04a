package contract

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// freePort is a port that no one serves.
func freePort(t *testing.T, host string) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Skip(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// TestConnectToItself: a socket that TCP connects to itself, because no one
// serves the port and the port became its own, counts as a refused connect, and
// leaves the port free for its server.
func TestConnectToItself(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			onRealLoops(t, func(t *testing.T, l *weir.Loop) {
				at := freePort(t, host)
				for range 3 {
					p := &dialed{}
					l.Connect("tcp", at.String(), p, weir.WithLocalAddr(at))
					turns(t, l, "the connect has ended", func() bool { return p.ended > 0 || p.t != nil })
					if p.t != nil || !errors.Is(p.err, syscall.ECONNREFUSED) {
						t.Fatalf("connected %v, %v; want it refused", p.t != nil, p.err)
					}
				}
				ln, err := net.Listen("tcp", at.String())
				if err != nil {
					t.Fatalf("the port is not free: %v", err)
				}
				_ = ln.Close()
			})
		})
	}
	t.Run("drawn", func(t *testing.T) {
		w := sim.New(1, sim.Config{Faults: sim.Faults{SelfConnect: 1}})
		b, err := w.Host("client").Backend()
		if err != nil {
			t.Fatal(err)
		}
		l := newLoop(t, weir.WithBackend(b))
		b.Drive(l)
		for _, a := range w.Host("client").Addrs() {
			p := &dialed{}
			l.Connect("tcp", netip.AddrPortFrom(a, 45000).String(), p)
			if err := w.Run(func() bool { return p.ended > 0 || p.t != nil }); err != nil {
				t.Fatal(err)
			}
			if p.t != nil || !errors.Is(p.err, syscall.ECONNREFUSED) {
				t.Errorf("%v: connected %v, %v; want it refused", a, p.t != nil, p.err)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := w.Run(nil); err != nil {
			t.Error(err)
		}
		if u := w.Usage(); u != (sim.Usage{}) {
			t.Errorf("left behind: %+v", u)
		}
	})
}
