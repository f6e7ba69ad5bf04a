// Package sys is where platforms differ. On every platform it says what a descriptor
// is, makes pairs of descriptors, waits for one on behalf of a host's thread, and knows
// which signals and threads there are; for anything that the system does not have the
// error is errors.ErrUnsupported. On Linux it also holds the system calls that the
// descriptor backends (epoll and io_uring) share: sockets, their addresses and options,
// non-blocking reads and writes, pipes, and taking over descriptors from outside.
//
//	Spec ──Open──▶ descriptor ──Recv/Send, Read/Write, Splice──▶ Close, Reset
//	fd  ──Adopt──▶ Descriptor (how it has to be treated) ──────▶ Close
//
// Functions that move bytes return a count and an errno, 0 for success, and never
// io.EOF: a count of 0 with errno 0 is the end. Those calls are made raw, that is
// without telling the runtime's scheduler, which is right only because they never wait;
// the few calls that may wait for a disk say so. EINTR is retried everywhere. Nothing
// here allocates on the accept, read and write paths.
//
// All functions may be called from any goroutine, as far as the kernel allows
// it for the descriptor at hand.
package sys
