// Package netconn is the edge between loops and goroutines: a transport as a
// net.Conn and a listener as a net.Listener, for code that blocks.
//
//	goroutines                      │ the loop
//	  Read  ◀── bytes ──── inbox ◀──┼── DataReceived        (a full inbox pauses reading)
//	  Write ─── bytes ──▶ outbox ───┼─▶ Transport.Write     (PauseWriting blocks writers)
//	  Close, CloseWrite, deadlines ─┼─▶ Notifier, one wake for many calls
//
// Nothing here starts a goroutine. A Conn stands on any weir.Transport, layers
// included: to the loop it is one more weir.Protocol.
//
// Deadlines are those of package net, on the process's clock, not the loop's.
// A blocking method must not be called on the loop's goroutine: what it waits
// for could never happen.
package netconn
