package relay

import (
	"testing"
	"unsafe"
)

// TestSize: a relay takes no more memory than the allocator's class of 256 bytes, whatever it
// learns to do.
func TestSize(t *testing.T) {
	if n := unsafe.Sizeof(Relay{}); unsafe.Sizeof(uintptr(0)) == 8 && n > 256 {
		t.Errorf("a Relay takes %d bytes, the limit is 256", n)
	}
}
