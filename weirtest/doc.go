// Package weirtest is the kit for testing what is built on weir.
//
// A protocol is an object whose methods a test can call. What it needs is
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
// A Pump ties two protocols together in memory and chops what passes between
// them any way it is told; EveryChop holds that the way a stream was cut makes
// no difference to what a protocol does; CheckLeaks fails a test that leaves
// goroutines or descriptors behind.
//
// Nothing here starts a goroutine or looks at a clock, except CheckLeaks, which
// gives goroutines that are about to end a moment to do so. A failure is
// reported through testing.TB, with the trace of calls that led to it.
package weirtest
