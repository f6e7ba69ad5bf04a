package sys

import "golang.org/x/sys/unix"

// ThreadID identifies the calling thread.
func ThreadID() uint64 { return uint64(unix.Gettid()) }
