package contract

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// TestForkHoldsUpNothing: while a program is being started, and its disk is slow,
// syscall.ForkLock is held. A loop goes on: it listens, accepts, connects and makes pipes
// and socket pairs.
func TestForkHoldsUpNothing(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		syscall.ForkLock.Lock()
		var free atomic.Bool
		unlock := func() bool {
			first := free.CompareAndSwap(false, true)
			if first {
				syscall.ForkLock.Unlock()
			}
			return first
		}
		stuck := time.AfterFunc(10*time.Second, func() {
			if unlock() {
				t.Error("the loop waited for the fork")
			}
		})
		defer stuck.Stop()
		defer unlock()
		echoed := false
		connectEcho(t, l, func() { echoed = true })
		turns(t, l, "an echo", func() bool { return echoed })
		echo := func(tr weir.Transport) weir.Protocol { return weir.DataFunc(tr.Write) }
		if _, _, err := l.Pipe(echo, echo); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.SocketPair(echo, echo); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Listen("unix", t.TempDir()+"/s", echo); err != nil {
			t.Fatal(err)
		}
	})
}
