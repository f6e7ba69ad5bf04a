//go:build linux

package uring

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

func TestSmoke(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t0 := time.Now()
	b, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(time.Since(t0), b.Caps())
	defer b.Close()
	p, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	h, err := b.Adopt(p[0])
	var c backend.Completion
	done := make([]backend.Completion, 16)
	rd := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h}
	b.Submit(rd, &c)
	go func() { time.Sleep(10 * time.Millisecond); unix.Write(p[1], []byte("hello")) }()
	n, err := b.Wait(time.Second, done)
	if err != nil || n != 1 || string(done[0].Buf) != "hello" || !done[0].More {
		t.Fatal(n, err, done[:n])
	}
	wr := &backend.Op{Kind: backend.Write, Flags: backend.Quiet, Handle: h, Vec: [][]byte{[]byte("he"), []byte("llo")}}
	b.Submit(wr, &c)
	n, err = b.Wait(10*time.Millisecond, done)
	fmt.Println(n, err, done[:n], b.Stats())
	buf := make([]byte, 10)
	k, _ := unix.Read(p[1], buf)
	if !bytes.Equal(buf[:k], []byte("hello")) {
		t.Fatal(buf[:k])
	}
	unix.Close(p[1])
	n, err = b.Wait(time.Second, done)
	fmt.Println(n, err, done[:n], b.Stats())
	if rd.Armed() {
		t.Fatal()
	}
}

func TestPollFD(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b, _ := New(Config{})
	defer b.Close()
	p, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	h, _ := b.Adopt(p[0])
	var c backend.Completion
	done := make([]backend.Completion, 16)
	rd := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h}
	b.Submit(rd, &c)
	b.Wait(0, done)
	pf := []unix.PollFd{{Fd: int32(b.Caps().PollFD), Events: unix.POLLIN}}
	go func() { time.Sleep(10 * time.Millisecond); unix.Write(p[1], []byte("hello")) }()
	fmt.Println(unix.Poll(pf, 1000))
	fmt.Println(b.Wait(0, done))
	go func() { time.Sleep(10 * time.Millisecond); b.Wake() }()
	fmt.Println(unix.Poll(pf, 1000))
	fmt.Println(b.Wait(0, done))
	fmt.Println(unix.Poll(pf, 0))
}

func TestHangupRDHUP(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b, _ := New(Config{})
	defer b.Close()
	p, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	h, _ := b.Adopt(p[0])
	var c backend.Completion
	done := make([]backend.Completion, 16)
	rd := &backend.Op{Kind: backend.Hangup, Handle: h}
	b.Submit(rd, &c)
	b.Wait(0, done)
	unix.Shutdown(p[1], unix.SHUT_WR)
	fmt.Println(b.Wait(50*time.Millisecond, done))
	fmt.Println(b.Stats())
	unix.Close(p[1])
	fmt.Println(b.Wait(50*time.Millisecond, done))
	fmt.Println(b.Stats(), done[0])
}
