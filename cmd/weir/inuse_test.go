package main

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

// TestAddressInUse: weir waits for an address that is in use for a moment, not for
// long for one that stays in use, and other errors end the start at once.
func TestAddressInUse(t *testing.T) {
	other := errors.New("other")
	for _, c := range []struct {
		fails int // how often the address is in use
		then  error
		calls int
		want  error
	}{
		{0, nil, 1, nil},
		{3, nil, 4, nil},
		{3, other, 4, other},
		{1000, nil, addressTries, syscall.EADDRINUSE},
	} {
		calls, pauses := 0, 0
		err := whenFree(func() error {
			if calls++; calls <= c.fails {
				return fmt.Errorf("bind: %w", syscall.EADDRINUSE)
			}
			return c.then
		}, func() { pauses++ })
		if !errors.Is(err, c.want) || calls != c.calls || pauses != min(c.fails, addressTries) {
			t.Errorf("%+v: %v after %d calls and %d pauses", c, err, calls, pauses)
		}
	}
}
