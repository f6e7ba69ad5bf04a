package epoll

import (
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// fullPipe is the reading end of a pipe with a mebibyte in it.
func fullPipe(t *testing.T, b *Backend) backend.Handle {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[1]) })
	const size = 1 << 20
	if _, err := unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, size); err != nil {
		t.Skipf("a pipe of %d bytes: %v", size, err)
	}
	if n, err := unix.Write(p[1], make([]byte, size)); n != size || err != nil {
		t.Fatalf("%d bytes written, %v", n, err)
	}
	return adopt(t, b, p[0])
}

// TestBulkReads: a read grows if bytes keep coming, but not if others wait or if
// reading has stopped in between, since a paused reader has to keep what came
// (behaviour 43).
func TestBulkReads(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		first := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: fullPipe(t, b)}
		second := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: fullPipe(t, b)}
		expect := func(when string, sizes map[*backend.Op]int) {
			t.Helper()
			got := wait(t, b, time.Second)
			if len(got) != len(sizes) {
				t.Fatalf("%s: %d results, want %d", when, len(got), len(sizes))
			}
			for _, c := range got {
				if c.Err != nil || c.N != sizes[c.Op] || len(c.Buf) != c.N {
					t.Fatalf("%s: %d bytes, want %d (%v)", when, c.N, sizes[c.Op], c.Err)
				}
			}
		}
		submit(t, b, first)
		expect("the first read", map[*backend.Op]int{first: readSize})
		expect("after a full one", map[*backend.Op]int{first: bulkSize})
		expect("after a larger one", map[*backend.Op]int{first: bulkSize})
		if !b.Cancel(first) {
			t.Fatal("Cancel leaves a result to come")
		}
		submit(t, b, first)
		expect("after a pause", map[*backend.Op]int{first: readSize})
		expect("and then", map[*backend.Op]int{first: bulkSize})
		submit(t, b, second)
		for range 3 {
			expect("two of them", map[*backend.Op]int{first: readSize, second: readSize})
		}
	})
}
