//go:build !unix

package sys

import "errors"

// Where descriptors are not numbers, these say so.

// Describe fails: see Description.
func Describe(int) (d Description, err error) { return d, errors.ErrUnsupported }

// SocketPair fails.
func SocketPair() ([2]int, error) { return [2]int{}, errors.ErrUnsupported }

// Pipe fails.
func Pipe() ([2]int, error) { return [2]int{}, errors.ErrUnsupported }

// CloseAll has no effect.
func CloseAll(...int) {}
