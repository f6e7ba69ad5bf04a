package sys

import "golang.org/x/sys/unix"

// ThreadID identifies the thread that it is called on.
func ThreadID() uint64 { return uint64(unix.Gettid()) }
