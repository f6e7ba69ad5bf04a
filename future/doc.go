// Package future has values that are not there yet.
//
//	f, p := future.New[int](s)
//
//	                    Resolve, Reject              next turn
//	Promise p ──▶ open ─────────────────▶ settled ─────────────▶ callbacks of f
//	                ▲                        ▲
//	Future f ───────┴──── Cancel ────────────┘ (or the Promise's OnCancel)
//
// A Future has no wait. Whoever wants its value says what shall be called, and
// that is called from the loop's queue: never inside the call that settled the
// future, never inside the call that asked. A future settles once; what comes
// later is told that it came too late.
//
// Waiting for several things needs nothing but futures: Gather, GatherAll,
// Race, FirstSuccess, AsCompleted, Both, Timeout, Shield, Then and Map make one
// future of others. Coroutines, which read as if they waited, are package task.
//
// A Scheduler is a loop as futures see it: something to post to, and timers. On
// makes one of any loop that has the right methods, weir.Loop among them; this
// package imports no other of weir's.
//
// Futures belong to the loop's goroutine, as everything on a loop does. What
// may be called from elsewhere says so: Promise.Post, Callback's function,
// Scheduler.Post.
//
// # Failures that nobody looked at
//
// A future that failed, and whose failure nobody asked for, is reported as an
// *UnseenError: when Scheduler.Close is called, in the order of settling, and
// before that when the garbage collector finds that nobody can look any more.
// Cancellations are not reported. AtCloseOnly leaves the collector out, for
// runs that must be the same each time.
package future
