// Package netconn is the boundary between loops and goroutines: it presents a transport
// as a net.Conn and a listener as a net.Listener, for code that blocks.
//
//	goroutines                      │ the loop
//	  Read  ◀── bytes ──── inbox ◀──┼── DataReceived        (a full inbox pauses reading)
//	  Write ─── bytes ──▶ outbox ───┼─▶ Transport.Write     (PauseWriting blocks writers)
//	  Close, CloseWrite, deadlines ─┼─▶ Notifier, one wake for many calls
//
// A Conn starts no goroutine. It works on any weir.Transport, including layers: to the
// loop it is just another weir.Protocol.
//
// Deadlines are those of package net, on the process's clock, not the loop's. A
// blocking method must not be called on the loop's goroutine: the event it waits for
// could never happen.
package netconn
