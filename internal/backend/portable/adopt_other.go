//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package portable

import (
	"os"
	"strconv"

	"github.com/weir-io/weir/internal/backend"
)

// Adopt takes over the system's handle of a file, a pipe or a console. Package
// net cannot take over a socket here.
func (b *Backend) Adopt(fd int) (backend.Handle, error) {
	if b.closed {
		return backend.None, errClosed
	}
	f := os.NewFile(uintptr(fd), "handle "+strconv.Itoa(fd))
	if f == nil {
		return backend.None, errBadHandle
	}
	return b.add(b.connected(f)), nil
}
