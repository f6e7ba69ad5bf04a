// Package task has coroutines: functions that wait in the middle and run on the
// loop's own goroutine, one at a time, in an order that the same seed repeats.
//
//	root := task.New(future.On(loop))
//	root.Go("greeter", func(t *task.Task) error {
//		if err := t.Sleep(time.Second); err != nil {
//			return err
//		}
//		name, err := task.Await(t, lookup)
//		...
//	})
//
// A task has the loop until it waits: Await, Sleep, Yield, the locks and queues
// of this package, the streams of task/stream. Between two waits nothing else
// runs, so what it touches needs no lock. What blocks the goroutine otherwise (a
// channel, a file, a long computation) stops the loop.
//
//	         Go             next turn            a wait
//	new ───────────▶ queued ──────────▶ running ────────▶ waiting
//	                   ▲                   │                 │
//	                   └───────────────────┼─────────────────┘ what it waits for,
//	                                       ▼                   or a cancellation
//	                                     ended
//
// # Scopes
//
// Every task belongs to a Scope, and no scope ends before its tasks. If one of
// them fails, the scope is canceled: the others are told, awaited, and what
// went wrong is returned, joined. A scope has a deadline that can be moved and
// may be shielded from the cancellation of what is around it.
//
// Cancellation is an error, future.ErrCanceled, and it is a state: every wait in
// a canceled scope returns it, each time (in a turn of its own, so that one who
// ignores it slows nobody else). A wait that was over before the cancellation
// came returns what it waited for: nothing handed over is lost.
//
// # Threads
//
// Coroutines are iter.Pull's. Where a backend ties the loop to a thread
// (io_uring), a coroutine that was started in one call of Run cannot be resumed
// in another: let the scope end before the loop is stopped, as Run of this
// package does. A task that cannot be resumed is left as it is and named by
// Scope.Close.
//
// # What it costs
//
// A switch is a function call of the runtime, some 80 ns there and back; a
// parked task takes 3.2 KB, most of it its stack. A million connections that
// mostly wait are better written as callbacks, which take what the transport
// takes: see docs/design/tasks.md.
package task
