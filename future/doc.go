// Package future provides values that are not there yet.
//
//	f, p := future.New[int](s)
//
//	                    Resolve, Reject              next turn
//	Promise p ──▶ open ─────────────────▶ settled ─────────────▶ callbacks of f
//	                ▲                        ▲
//	Future f ───────┴──── Cancel ────────────┘ (or the Promise's OnCancel)
//
// A Future has no method that waits. Code that wants its value passes a function, which
// is called from the loop's queue: never inside the call that settles the future, never
// inside the call that passes the function. A future settles once; a later attempt to
// settle it reports that it came too late.
//
// Waiting for several things needs nothing but futures: Gather, GatherAll, Race,
// FirstSuccess, AsCompleted, Both, Timeout, Shield, Then and Map make one future of
// others. Coroutines, which read as if they waited, are in package task.
//
// A Scheduler is a loop as futures see it: something to post to, and timers. On makes
// one from any loop that has the right methods, such as weir.Loop; this package does
// not import package weir.
//
// Futures belong to the loop's goroutine, as everything on a loop does. Functions that
// may be called from elsewhere say so: Promise.Post, Callback's function,
// Scheduler.Post.
//
// # Failures that no one looked at
//
// If a future fails and no one looks at the failure, it is reported as an *UnseenError:
// when Scheduler.Close is called, in the order of settling, or before that, when the
// garbage collector finds that no one can look any more. Cancellations are not
// reported. AtCloseOnly leaves the collector out, for runs that must be reproducible.
package future
