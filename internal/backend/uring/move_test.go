//go:build linux

package uring

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// onThread runs f on a thread of its own.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		f()
		runtime.UnlockOSThread()
		close(done)
	}()
	<-done
}

func TestMove0(t *testing.T) {
	b, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	h, _ := b.Adopt(p[0])
	var c backend.Completion
	done := make([]backend.Completion, 16)
	rd := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h}
	b.Submit(rd, &c)
	unlock := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		fmt.Println(b.Wait(0, done))
		unix.Write(p[1], []byte("one"))
		<-unlock
		runtime.UnlockOSThread()
	}()
	time.Sleep(50 * time.Millisecond)
	onThread(func() {
		t0 := time.Now()
		n, err := b.Wait(time.Second, done)
		fmt.Println(n, err, string(done[0].Buf), time.Since(t0), b.Stats())
		unix.Write(p[1], []byte("two"))
		n, err = b.Wait(time.Second, done)
		fmt.Println(n, err, string(done[0].Buf), b.Stats())
	})
	close(unlock)
	onThread(func() { t0 := time.Now(); fmt.Println(b.Close(), time.Since(t0)) })
}
