//go:build !unix

package process

import "errors"

// IsTerminal reports whether descriptor fd is a terminal.
func IsTerminal(int) bool { return false }

// Raw makes a terminal pass every byte on as it is; it works on Unix only.
func Raw(int) (restore func() error, err error) { return nil, errors.ErrUnsupported }

// WindowSize is the size of a terminal; it works on Unix only.
func WindowSize(int) (Size, error) { return Size{}, errors.ErrUnsupported }

// SetWindowSize sets the size of a terminal; it works on Unix only.
func SetWindowSize(int, Size) error { return errors.ErrUnsupported }
