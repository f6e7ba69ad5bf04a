//go:build !linux && !darwin && !freebsd

package sys

import "errors"

// PeerOf fails.
func PeerOf(int) (User, error) { return User{}, errors.ErrUnsupported }

// GroupsOf fails.
func GroupsOf(int) ([]uint32, error) { return nil, errors.ErrUnsupported }
