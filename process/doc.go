// Package process starts programs whose descriptors are transports of a loop, and
// tells when they have exited.
//
//	loop                      executor's goroutine            kernel
//	Start ───────────────────▶ pipes, sockets, terminals
//	                           fork, exec ──────────────────▶ child
//	Attach our ends ◀───────── their numbers, pid, pidfd
//	future: *Process                                            │
//	Watch of the pidfd ◀────────────────────────────────────── exit
//	reap; Process.Exited                                     (zombie)
//
// Starting never blocks the loop, and no shell is run: Args reaches the program as
// it is. That a program has exited and that its output has ended are two events, in
// either order: a grandchild may keep a pipe open after the child has exited, and a
// child may close its output and continue.
//
// A child is reaped only on its loop's goroutine, and no signal is sent after that,
// so that none reaches another process that was given the number. Only children that
// were started here are waited for, each by its own number.
//
// Package process works on Unix; terminals are opened on Linux only. Elsewhere
// Start fails with errors.ErrUnsupported. It is not simulated.
package process
