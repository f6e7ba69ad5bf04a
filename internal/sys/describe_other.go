//go:build !unix

package sys

import "errors"

// Stubs for systems whose descriptors are not numbers.

// Describe fails: see Description.
func Describe(int) (d Description, err error) { return d, errors.ErrUnsupported }

// SocketPair fails.
func SocketPair() ([2]int, error) { return [2]int{}, errors.ErrUnsupported }

// Pipe fails.
func Pipe() ([2]int, error) { return [2]int{}, errors.ErrUnsupported }

// CloseAll has no effect.
func CloseAll(...int) {}
