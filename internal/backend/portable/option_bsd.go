//go:build dragonfly || freebsd || netbsd || openbsd

package portable

import "github.com/weir-io/weir/internal/backend"

// Constants that the systems name differently, and on which nothing above depends.

func keepIdle(int) (int, error)               { return 0, backend.ErrUnsupported }
func unsentBytes(int) (int, error)            { return 0, backend.ErrUnsupported }
func unreadBytes(int) (int, error)            { return 0, backend.ErrUnsupported }
func userTimeout(int) (int, error)            { return 0, backend.ErrUnsupported }
func setUserTimeout(int, int) error           { return backend.ErrUnsupported }
func setLinux(int, backend.Option, int) error { return backend.ErrUnsupported }
func unanswered(int) (int, error)             { return 0, backend.ErrUnsupported }
func patience(int) (int, error)               { return 0, backend.ErrUnsupported }
