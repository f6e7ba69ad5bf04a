package weirtest

import (
	"testing"

	"github.com/weir-io/weir"
)

// Where says where TestLayers runs.
type Where uint8

// The places.
const (
	Simulated  Where = iota // in the simulator, calm and with everything cut
	OneBackend              // there and over TCP on the backend that serves by default
	Everywhere              // there and over TCP on every backend of this machine
)

// TestLayers runs TestStreams over layers: server turns a factory into what the
// listener gets, client a protocol into what connects, as for Layered. What the
// backends have in common is tested with each of them already, so a layer that
// touches none of it needs one of them.
func TestLayers(t *testing.T, where Where, server func(weir.Factory) weir.Factory, client func(weir.Protocol) weir.Protocol) {
	t.Helper()
	run := func(name string, m Maker) {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a case waits more than it works
			TestStreams(t, Layered(m, server, client))
		})
	}
	switch where {
	case Everywhere:
		for _, name := range weir.Backends() {
			run(name, LoopStreams("tcp", weir.WithBackendName(name)))
		}
	case OneBackend:
		run("default", LoopStreams("tcp"))
	case Simulated:
	}
	run("sim", SimStreams(1))
	run("sim, cut", SimStreams(2, WithFaults(Faults{
		CutRead: 0.2, CutWrite: 0.2, CutWire: 0.2, Defer: 0.2, Again: 0.2, Shuffle: true,
	})))
}
