//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package portable

import (
	"io"
	"net"
	"os"

	"github.com/weir-io/weir/internal/backend"
)

// polls says that this platform has no polled port: a socket here cannot be
// tried without blocking.
const polls = false

func regular(st os.FileInfo) bool { return st.Mode().IsRegular() }

func newPolled(*Backend, *entry, io.ReadWriteCloser) port { return nil }

func newReady(*Backend, *entry, net.Listener) (port, error) { return nil, backend.ErrUnsupported }
