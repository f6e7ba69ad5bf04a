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
// were started here are waited for, each by its own number. A process group keeps its
// number while any process is in it, but only until the child is reaped is that known: a
// group gets no signal after that, though what the child started may live on in it. If
// other code reaps the child, by a wait for any child, no signal is sent either; only
// where the kernel cannot send signals by pidfd (before Linux 6.9 for groups) does a gap
// of some microseconds remain, between the question whether the child is there and the
// signal. On other systems than Linux a signal can meet the moment between the kernel's
// reaping and our hearing of it.
//
// While a program is being started, syscall.ForkLock is held, on a slow disk for long.
// No loop waits for it on Linux, whatever it opens; elsewhere pipes, socket pairs and
// sockets cannot all be made close-on-exec in one call, and a loop that makes one waits
// for the fork. Go's runtime cannot stop the world during a fork, so a garbage collection
// that begins then waits too, and everything with it; therefore what exec reads of the
// program is read before the fork.
//
// Package process works on Unix; terminals are opened on Linux only. Elsewhere
// Start fails with errors.ErrUnsupported. On a simulated host programs are simulated:
// see weirtest.SimProgram.
package process
