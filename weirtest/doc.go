// Package weirtest is the kit for testing programs built on weir.
//
// A protocol is an object whose methods a test can call. It only needs
// something to write to:
//
//	                    your test
//	      Connect, Deliver, │  ▲ Written, Trace,
//	      DeliverEOF, Lose  ▼  │ Lost
//	┌──────────────────────────────────────────────┐
//	│ Recorder: a Transport that keeps every       │
//	│ promise of a real one and writes it all down │
//	└──────────────────────────────────────────────┘
//	      ConnectionMade,   │  ▲ Write, Close,
//	      DataReceived, ... ▼  │ PauseReading, ...
//	                    your Protocol
//
// A Pump ties two protocols together in memory and splits the bytes between
// them in any way it is told; EveryChop checks that the way a stream is split
// makes no difference to what a protocol does; CheckLeaks fails a test that
// leaves goroutines or descriptors behind.
//
// A Sim is a whole network in memory: hosts with loops, TCP and UDP between them,
// a clock that jumps to the next moment at which something happens, and a seed
// that decides everything else. The program runs on it unchanged:
//
//	 your program        your program
//	┌──────┴─────┐      ┌──────┴─────┐     NewSim, Sim.Host, SimHost.Loop: build it
//	│ Host "a"   │      │ Host "b"   │     Sim.Until, Run, RunFor: let it run
//	└──────┬─────┘      └──────┬─────┘     WithFaults, WithSwarm: what goes wrong
//	       └──── Sim: wire ────┘           Hold, Fail, Short, Partition, Crash: by hand
//	             clock, seed               Seeds: many worlds, each a subtest
//	                                       Sim.TLS: the same run again, with TLS too
//
// On a simulated host, process.Start starts simulated programs (SimHost.Program): functions
// of the test with a loop, descriptors, signals and an exit code of their own.
//
// A test that fails describes its world in words, and prints the command that
// replays it; -weir.seed=N or WEIR_SEED=N chooses a seed by hand and prints the
// trace.
//
// TestStreams, TestLayers and the Invariants are for authors of a transport, a
// layer or a backend: they check what every stream promises.
//
// Nothing here starts a goroutine or reads a clock, except CheckLeaks, which
// gives goroutines that are about to end a moment to do so. A failure is
// reported through testing.TB, with the trace of calls that led to it.
package weirtest
