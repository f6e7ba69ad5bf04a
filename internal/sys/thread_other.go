//go:build !linux

package sys

import "github.com/weir-io/weir/internal/gid"

// ThreadID is for backends that need one thread, of which Linux has the only one. A
// goroutine that is locked stands for its thread.
func ThreadID() uint64 { return gid.ID() }
