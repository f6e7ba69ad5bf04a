// Package stream lets coroutines read and write a transport as if they waited.
//
//	loop.Listen("tcp", ":7000", stream.Factory(scope, func(t *task.Task, c *stream.Stream) error {
//		for {
//			line, err := c.ReadLine(t, 1024)
//			if err != nil {
//				return stream.End(err)
//			}
//			c.Write(append(line, '\n'))
//		}
//	}))
//
// A Stream is a weir.Protocol. While its task waits for bytes, DataReceived resumes it
// at once, with the bytes where the transport has them: there is no turn of the loop
// and no buffer between the two. Bytes that no one has asked for yet are kept, up to 64
// KiB, and then reading is paused.
//
//	transport ── DataReceived ──▶ Stream ──▶ the task, in the middle of Read
//	    ▲                                        │
//	    └──────────────── Write ─────────────────┘
//
// A program can move between callbacks and coroutines piece by piece. Adopt takes a
// transport over from the protocol that it had; Handover gives it to another protocol;
// a Stream that has no transport is fed by calling its DataReceived, so that a callback
// protocol can have a part that is a coroutine.
//
// Reads belong to the task that makes them, one at a time; everything else to
// the loop's goroutine.
package stream
