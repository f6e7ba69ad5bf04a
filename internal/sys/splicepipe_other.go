//go:build !linux

package sys

import "errors"

// SplicePipe fails: only Linux splices.
func SplicePipe(int) (r, w int, err error) { return -1, -1, errors.ErrUnsupported }
