package main

import (
	"testing"
	"unsafe"

	"github.com/weir-io/weir/relay"
)

// TestSizes: a session and its relay take no more memory than the allocator's classes of 192
// and 256 bytes: thousands of them are idle at one time (R79).
func TestSizes(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the sizes are those of 64 bits")
	}
	for what, s := range map[string][2]uintptr{
		"session": {unsafe.Sizeof(session{}), 192},
		"Relay":   {unsafe.Sizeof(relay.Relay{}), 256},
	} {
		if s[0] > s[1] {
			t.Errorf("a %s takes %d bytes, the limit is %d", what, s[0], s[1])
		}
	}
}
