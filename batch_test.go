package weir_test

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// A reset ends a stream's read and its write, and one Wait reports both: the
// second result must not meet a buffer that has gone to another stream. Many
// streams, so that it would.
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
