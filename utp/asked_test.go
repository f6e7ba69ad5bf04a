package utp_test

import (
	"bytes"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/utp"
	"github.com/weir-io/weir/weirtest"
)

// TestFromAsked: connections of an endpoint on every address leave from the one that the
// peer dialed, also what timers send, and so do resets; on every backend that can tell
// (A4).
func TestFromAsked(t *testing.T) {
	for _, name := range weir.Backends() {
		t.Run(name, func(t *testing.T) {
			l, err := weir.NewLoop(weir.WithBackendName(name), weir.WithErrorHandler(func(err error) { t.Error(err) }))
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			if !l.Backend().Packets.Local {
				t.Skip("the backend does not tell local addresses (BackendInfo.Packets)")
			}
			server, err := utp.Open(l, "udp", ":0", utp.Config{})
			if err != nil {
				t.Fatal(err)
			}
			var accepted *ear
			ln, err := server.Listen(func(weir.Transport) weir.Protocol {
				accepted = &ear{}
				return accepted
			})
			if err != nil {
				t.Fatal(err)
			}
			dial := func(host string) *ear {
				client, err := utp.Open(l, "udp", ":0", utp.Config{})
				if err != nil {
					t.Fatal(err)
				}
				e := &ear{}
				client.Dial(netip.AddrPortFrom(netip.MustParseAddr(host), server.Packets().Local().IP.Port()), e)
				weirtest.Until(t, l, "a connection to "+host, func() bool { return e.made+accepted.maybeMade() == 2 || e.failed != nil })
				if e.failed != nil {
					t.Fatalf("to %s: %v", host, e.failed)
				}
				client.Close() // with its last connection
				return e
			}
			for _, host := range []string{"127.0.0.2", "127.0.0.1", "::1"} {
				accepted = nil
				e := dial(host)
				if got, want := accepted.t.LocalAddr().String(), e.t.RemoteAddr().String(); got != want {
					t.Errorf("%s was dialed, %s says the server", want, got)
				}
				if got, want := e.t.LocalAddr().String(), accepted.t.RemoteAddr().String(); got != want {
					t.Errorf("the client says %s, the server knows it as %s", got, want)
				}
				// Outside of the packets' callbacks.
				data := noise(100_000)
				if _, err := accepted.t.Write(data); err != nil {
					t.Fatal(err)
				}
				weirtest.Until(t, l, "what the server sends by itself", func() bool { return len(e.got) == len(data) || e.over() })
				if !bytes.Equal(e.got, data) {
					t.Errorf("to %s: %d bytes, %v", host, len(e.got), e.err)
				}
				e.t.Abort()
				weirtest.Until(t, l, "its end", func() bool { return accepted.lost == 1 })
			}
			_ = ln.Close()
			refused := &ear{}
			client, err := utp.Open(l, "udp4", "127.0.0.1:0", utp.Config{ConnectTimeout: 5 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			client.Dial(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), server.Packets().Local().IP.Port()), refused)
			weirtest.Until(t, l, "a refusal", func() bool { return refused.failed != nil })
			if !errors.Is(refused.failed, syscall.ECONNREFUSED) {
				t.Errorf("%v: its reset came from elsewhere", refused.failed)
			}
		})
	}
}

func (e *ear) maybeMade() int {
	if e == nil {
		return 0
	}
	return e.made
}

// TestFromAskedByTimer: where a packet is lost, the one that a timer sends again leaves
// from the address that was dialed.
func TestFromAskedByTimer(t *testing.T) {
	a := netip.MustParseAddr
	for _, hosts := range [][2]netip.Addr{{a("10.0.0.2"), a("10.0.0.3")}, {a("fd00::2"), a("fd00::3")}} {
		s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{Drop: 0.1}))
		s.Host("a", hosts[0], hosts[1])
		s.Host("b", a("10.0.0.9"), a("fd00::9"))
		w := newWildWorld(t, s)
		if _, err := w.a.Listen(func(weir.Transport) weir.Protocol { return &ear{send: noise(30_000)} }); err != nil {
			t.Fatal(err)
		}
		e := &ear{}
		w.b.Dial(netip.AddrPortFrom(hosts[1], aPort), e)
		s.Until("all of it", func() bool { return len(e.got) == 30_000 || e.over() })
		if !bytes.Equal(e.got, noise(30_000)) {
			t.Errorf("%d bytes, %v, %v", len(e.got), e.err, e.failed)
		}
	}
}

// newWildWorld is newWorld with endpoints on every address.
func newWildWorld(t *testing.T, s *weirtest.Sim) *world {
	t.Helper()
	w := &world{Sim: s}
	open := func(host, address string, n uint64) *utp.Endpoint {
		e, err := utp.Open(s.Host(host).Loop(), "udp", address, utp.Config{Random: chance(s.Seed()*10 + n)})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	w.a = open("a", ":7000", 1)
	w.b = open("b", ":8000", 2)
	return w
}
