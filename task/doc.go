// Package task provides coroutines: functions that can wait in the middle and run on
// the loop's own goroutine, one at a time, in an order that the same seed repeats.
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
// A task has the loop until it waits: Await, Sleep, Yield, the locks and queues of this
// package, the streams of task/stream. Between two waits nothing else runs, so the data
// it touches needs no lock. Anything else that blocks the goroutine (a channel, a file,
// a long computation) stops the loop.
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
// Every task belongs to a Scope, and no scope ends before its tasks. If one of them
// fails, the scope is canceled: the others are told and awaited, and all failures are
// returned, joined. A scope has a deadline, which can be moved, and may be shielded
// from the cancellation of the scopes around it.
//
// Cancellation is an error, future.ErrCanceled, and it is a state: every wait in a
// canceled scope returns it, each time (in a turn of its own, so that a task that
// ignores it slows no one else). A wait that was over before the cancellation came
// returns what it waited for: nothing handed over is lost.
//
// # Threads
//
// Coroutines are those of iter.Pull. If a backend ties the loop to a thread (io_uring),
// a coroutine that was started in one call of Run cannot be resumed in another: let the
// scope end before the loop is stopped, as Run of this package does. A task that cannot
// be resumed is left as it is and named by Scope.Close.
//
// # What it costs
//
// A switch is a runtime function call, some 80 ns there and back; a parked task takes
// 3.2 KB, most of it its stack. A million connections that mostly wait are better
// written as callbacks, which take no more than the transport: see
// docs/design/tasks.md.
package task
