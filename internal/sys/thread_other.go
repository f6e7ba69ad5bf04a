//go:build !linux

package sys

import "github.com/weir-io/weir/internal/gid"

// ThreadID is for backends that need one thread; only Linux has such a backend. A
// locked goroutine stands for its thread.
func ThreadID() uint64 { return gid.ID() }
