package portable

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// TestEventDescriptor: a descriptor that is not a file, socket or pipe is ready only
// when the system says so, not always as a regular file is (R14).
func TestEventDescriptor(t *testing.T) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	h, err := b.Adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	op := &backend.Op{Kind: backend.Ready, Flags: backend.Multi, Events: backend.Readable, Handle: h}
	if b.Submit(op, &backend.Completion{}) {
		t.Fatal("Submit finished")
	}
	done := make([]backend.Completion, 4)
	for range 3 {
		if n, err := b.Wait(0, done); n != 0 || err != nil {
			t.Fatalf("%d results, %v, and nothing was counted", n, err)
		}
	}
	if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	n, err := b.Wait(10*time.Second, done)
	if n != 1 || err != nil || done[0].Err != nil || backend.Events(done[0].N)&backend.Readable == 0 {
		t.Fatalf("%d results, %v: %+v", n, err, done[0])
	}
	if err := b.Shut(h, backend.Forget); err != nil {
		t.Error(err)
	}
}
