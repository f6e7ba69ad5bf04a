// Package sim is a network of named hosts in memory, with its own clock: a
// backend like any other, on which a run is decided by its seed alone.
//
//	 Loop        Loop                Loop          one Backend each
//	  │ Submit    │ Wait              │
//	  ▼           ▼                   ▼
//	┌────────────────────┐      ┌──────────┐
//	│ Host "a"           │      │ Host "b" │        handles, ports, names
//	│ socket ── flow ────┼──────┼─▶ socket │        bytes and their ends
//	└────────────────────┘      └──────────┘
//	          │ arrivals, acknowledgements, resets, retries
//	          ▼
//	     World: events by time, the clock, what goes wrong
//
// The sockets behave as Linux's do, as far as a program can see: connections
// wait in a listener's queue, a direction holds a send buffer, what is in
// flight and a receive window, a close with unread bytes resets, a reset lets
// what had arrived be read first. A Handle is the lowest free number of its
// host, so it comes back at once.
//
// Everything runs on the goroutine that calls Step, Run or Wait. The only thing
// that another goroutine may do is Wake. The clock moves when nothing can happen
// at the present moment, and then to the next moment at which something can.
// Nothing here asks for the time, starts a goroutine, selects, or depends on the
// order of a map; what is drawn comes from generators that the seed starts, one
// for each purpose, so that turning one fault on leaves the others' draws alone.
//
// Backends of one world are driven in one of two ways. Step picks a loop that
// has something to do and gives it one turn (see Drive). Or somebody calls a
// backend's Wait with a timeout, as Loop.Run does: it then runs the rest of the
// world until it has something to report.
package sim
