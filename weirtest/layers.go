package weirtest

import (
	"os"
	"testing"

	"github.com/weir-io/weir"
)

// Where says where TestLayers runs.
type Where uint8

// The places.
const (
	Simulated  Where = iota // in the simulator, calm and with everything split
	OneBackend              // there and over TCP on the backend that serves by default
	Everywhere              // there and over TCP on every backend of this machine
)

// TestLayers runs TestStreams over layers: server turns a factory into the one that
// the listener gets, client turns a protocol into the one that connects, as for
// Layered. What the backends promise is tested with each of them already, so a layer
// that does not touch it needs only one. Under the race detector the simulator is
// left out, and Simulated skips: a simulated world is one goroutine, which has no
// races, and takes ten times as long. The same applies if WEIR_BACKEND asks for a
// real backend.
func TestLayers(t *testing.T, where Where, server func(weir.Factory) weir.Factory, client func(weir.Protocol) weir.Protocol) {
	t.Helper()
	run := func(name string, m Maker) {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a case waits more than it works
			TestStreams(t, Layered(m, server, client))
		})
	}
	simulated := !underRace && os.Getenv("WEIR_BACKEND") == ""
	switch where {
	case Everywhere:
		for _, name := range weir.Backends() {
			run(name, LoopStreams("tcp", weir.WithBackendName(name)))
		}
	case OneBackend:
		run("default", LoopStreams("tcp"))
	case Simulated:
		if !simulated {
			t.Skip("a simulated world has no races, and is no backend that WEIR_BACKEND names")
		}
	}
	if !simulated {
		return
	}
	run("sim", SimStreams(1))
	run("sim, cut", SimStreams(2, WithFaults(Faults{
		CutRead: 0.2, CutWrite: 0.2, CutWire: 0.2, Defer: 0.2, Again: 0.2, Shuffle: true,
	})))
}

// LayerAllocs returns how many allocations a message costs once traffic is steady:
// 64 bytes that go back and forth over TCP on a backend (weir.WithBackendName),
// through layers on both ends, as for TestLayers. The backend "portable" adds some
// allocations of package net.
func LayerAllocs(t *testing.T, backend string, server func(weir.Factory) weir.Factory, client func(weir.Protocol) weir.Protocol) float64 {
	t.Helper()
	l, err := weir.NewLoop(weir.WithBackendName(backend))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	count := 0
	ln, err := l.Listen("tcp", "127.0.0.1:0", server(func(weir.Transport) weir.Protocol { return &rally{count: &count} }))
	if err != nil {
		t.Fatal(err)
	}
	l.Connect("tcp", ln.Addr().String(), client(&rally{count: &count, serves: true}))
	turns := func(messages int) {
		for want := count + messages; count < want; {
			if err := l.Turn(-1); err != nil {
				t.Fatal(err)
			}
		}
	}
	turns(200)
	return testing.AllocsPerRun(100, func() { turns(10) }) / 10
}

// rally sends back what it receives, and counts.
type rally struct {
	weir.NopProtocol
	t      weir.Transport
	count  *int
	serves bool
}

func (r *rally) ConnectionMade(t weir.Transport) {
	r.t = t
	if r.serves {
		_, _ = t.Write(make([]byte, 64)) // a loss leaves the count where it is
	}
}

func (r *rally) DataReceived(p []byte) (int, error) {
	*r.count++
	return r.t.Write(p)
}
