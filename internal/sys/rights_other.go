//go:build !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package sys

import "errors"

// RightsSpace is 0.
func RightsSpace() int { return 0 }

// SendRights fails.
func SendRights(int, []byte, []int) (int, error) { return 0, errors.ErrUnsupported }

// RecvRights fails.
func RecvRights(int, []byte, []byte) (int, []int, error) { return 0, nil, errors.ErrUnsupported }

// Dup fails.
func Dup(int) (int, error) { return -1, errors.ErrUnsupported }

// IsOpen fails.
func IsOpen(int) error { return errors.ErrUnsupported }
