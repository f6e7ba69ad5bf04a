package contract

import (
	"testing"

	"github.com/weir-io/weir"
	"golang.org/x/sys/unix"
)

// TestWatchFullBatch: with more watches than one batch of results holds, none is told
// that its descriptor is readable after the callback has read everything.
func TestWatchFullBatch(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		const n, rounds, each = 300, 20, 3
		got, empty := 0, 0
		var peers []int
		for range n {
			p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _, _ = unix.Close(p[0]), unix.Close(p[1]) })
			peers = append(peers, p[1])
			if _, err := l.Watch(p[0], weir.EventRead, func(weir.Events) {
				var b [64]byte
				if k, _ := unix.Read(p[0], b[:]); k > 0 {
					got += k
				} else {
					empty++
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		for round := range rounds {
			for range each {
				for _, fd := range peers {
					if _, err := unix.Write(fd, []byte("x")); err != nil {
						t.Fatal(err)
					}
				}
			}
			turns(t, l, "all bytes", func() bool { return got >= (round+1)*each*n })
			for range 5 {
				if err := l.Turn(0); err != nil {
					t.Fatal(err)
				}
			}
		}
		if empty > 0 {
			t.Errorf("%d calls for nothing", empty)
		}
	})
}
