//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd || windows)

package portable

import (
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

func getRaw(syscall.RawConn, backend.Option) (int, error)         { return 0, backend.ErrUnsupported }
func setRaw(syscall.RawConn, backend.Option, int) error           { return backend.ErrUnsupported }
func prepareListener(_ syscall.RawConn, spec *backend.Spec) error { return prepareDialer(nil, spec) }
func preparePacket(syscall.RawConn, *backend.Spec) error          { return nil }
func prepareDialer(syscall.RawConn, *backend.Spec) error          { return nil }
