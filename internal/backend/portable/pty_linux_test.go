package portable

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/backendtest"
)

// TestTerminalEnd: EIO from a terminal in blocking mode, which a goroutine therefore
// reads, is the end of the stream, after the data (behaviour 60).
func TestTerminalEnd(t *testing.T) {
	master, slave := backendtest.Terminal(t)
	if _, err := unix.Write(slave, []byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(slave); err != nil {
		t.Fatal(err)
	}
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	h, err := b.Adopt(master)
	if err != nil {
		t.Fatal(err)
	}
	read := &backend.Op{Kind: backend.Read, Handle: h, Flags: backend.Multi}
	if b.Submit(read, &backend.Completion{}) {
		t.Fatal("a Read that is not Now has its result at once")
	}
	var got []byte
	for done := make([]backend.Completion, 4); ; {
		n, err := b.Wait(10*time.Second, done)
		if err != nil || n == 0 {
			t.Fatalf("%d results, %v after %q", n, err, got)
		}
		for _, c := range done[:n] {
			if c.Err != nil {
				t.Fatalf("%v after %q", c.Err, got)
			}
			if c.N == 0 {
				if string(got) != "last words" {
					t.Errorf("got %q before the end", got)
				}
				return
			}
			got = append(got, c.Buf[:c.N]...)
		}
	}
}
