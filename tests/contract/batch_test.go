package contract

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
	"github.com/weir-io/weir/weirtest"
)

// A reset ends a stream's read and its write, and one Wait reports both: the
// second result must not meet a buffer that has gone to another stream. There
// are many streams, so that it would.
func TestReadAndWriteEndInOneBatch(t *testing.T) {
	const conns = 20
	w := sim.New(1, sim.Config{Faults: sim.Faults{Shuffle: true}})
	loop := func(host string) *weir.Loop {
		b, err := w.Host(host).Backend()
		if err != nil {
			t.Fatal(err)
		}
		l := newLoop(t, weir.WithBackend(b))
		b.Drive(l)
		return l
	}
	var stuck []weir.Transport
	server, here := loop("server"), loop("client")
	if _, err := server.Listen("tcp", ":7", func(tr weir.Transport) weir.Protocol {
		tr.PauseReading()
		stuck = append(stuck, tr)
		return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
	}); err != nil {
		t.Fatal(err)
	}
	var clients []*client
	lost := 0
	for range conns {
		c := &client{send: make([]byte, 4<<20), done: func() { lost++ }}
		clients = append(clients, c)
		here.Connect("tcp", netip.AddrPortFrom(w.Host("server").Addrs()[0], 7).String(), c)
	}
	if err := w.Run(nil); err != nil { // as far as it goes: every buffer is full
		t.Fatal(err)
	}
	if len(stuck) != conns || lost != 0 || clients[0].t.Buffered() == 0 {
		t.Fatalf("%d connections, %d lost, %d bytes buffered", len(stuck), lost, clients[0].t.Buffered())
	}
	server.Soon(func() {
		for _, tr := range stuck {
			tr.Abort()
		}
	})
	if err := w.Run(func() bool { return lost == conns }); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		if !errors.Is(c.err, syscall.ECONNRESET) {
			t.Errorf("connection %d was lost with %v", i, c.err)
		}
	}
	if err := errors.Join(here.Close(), server.Close()); err != nil {
		t.Error(err)
	}
	if u := w.Usage(); u != (sim.Usage{}) {
		t.Errorf("left behind: %+v", u)
	}
}

// TestWritesJoined: small pieces written in one callback leave in one write
// (R20); a large piece is sent at once and not copied.
func TestWritesJoined(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	here, there := s.Host("here").Loop(), s.Host("there")
	got := 0
	if _, err := there.Loop().Listen("tcp", ":7", func(weir.Transport) weir.Protocol {
		return weir.DataFunc(func(p []byte) (int, error) { got += len(p); return len(p), nil })
	}); err != nil {
		t.Fatal(err)
	}
	var tr weir.Transport
	here.Connect("tcp", netip.AddrPortFrom(there.Addrs()[0], 7).String(), &maker{made: func(t weir.Transport) { tr = t }})
	if err := s.Run(nil); err != nil || tr == nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pieces, size, writes int
	}{{10, 100, 1}, {1, 20_000, 1}, {3, 20_000, 3}} {
		got = 0
		before := s.Calls(weirtest.WriteCall)
		here.Soon(func() {
			for range c.pieces {
				_, _ = tr.Write(make([]byte, c.size))
			}
		})
		if err := s.Run(nil); err != nil {
			t.Fatal(err)
		}
		if n := s.Calls(weirtest.WriteCall) - before; got != c.pieces*c.size || n != c.writes {
			t.Errorf("%d pieces of %d bytes: %d bytes came, in %d calls, want %d", c.pieces, c.size, got, n, c.writes)
		}
	}
}
