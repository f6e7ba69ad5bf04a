//go:build !linux

package sys

import "errors"

// TCPInfoOf fails.
func TCPInfoOf(int) (TCPInfo, error) { return TCPInfo{}, errors.ErrUnsupported }
