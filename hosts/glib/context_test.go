package glib_test

import (
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/hosts/glib"
	"github.com/weir-io/weir/hosts/glib/internal/gtest"
	"github.com/weir-io/weir/hosts/internal/hosttest"
)

func host(t *testing.T, backend weir.LoopOption) (*weir.Loop, gtest.Context, *glib.Source) {
	t.Helper()
	loop, err := weir.NewLoop(backend, weir.WithErrorHandler(func(err error) { t.Error(err) }))
	if err != nil {
		t.Fatal(err)
	}
	ctx := gtest.From(glib.NewContext())
	s := glib.NewSource(loop, ctx.Pointer())
	err = loop.AddSource(s)
	if err != nil {
		t.Fatal(err)
	}
	late := loop.After(20*time.Second, func() { t.Error("nothing happened for 20 s"); loop.Stop() })
	t.Cleanup(func() {
		late.Stop()
		_ = loop.Close()
		ctx.Free()
	})
	return loop, ctx, s
}

// TestSource: timeouts, idle functions and descriptors of a GLib context are dispatched by
// a weir loop, which waits and does not poll (R14, R24).
func TestSource(t *testing.T) { hosttest.Backends(t, testSource) }

func testSource(t *testing.T, backend weir.LoopOption) {
	t.Helper()
	loop, ctx, s := host(t, backend)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fd := int(r.Fd())
	_ = unix.SetNonblock(fd, true)
	const each = 50
	ticks, reads, idles, posts := 0, 0, 0, 0
	check := func() bool {
		if ticks >= each && reads >= each && idles >= each && posts >= each {
			loop.Stop()
			return false
		}
		return true
	}
	ctx.Timeout(2, func() bool { ticks++; return check() })
	ctx.FD(fd, func() bool {
		var b [1]byte
		n, _ := unix.Read(fd, b[:])
		reads += n
		return check()
	})
	ctx.Idle(200, func() bool { idles++; return idles < each && check() })
	var write func()
	write = func() { // by the loop, between rounds
		_, _ = w.Write([]byte("x"))
		ctx.Idle(0, func() bool { posts++; check(); return false })
		if posts < each {
			loop.After(time.Millisecond, write)
		}
	}
	write()
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	events := ticks + reads + idles + posts
	if s.Rounds() > 4*events {
		t.Errorf("%d rounds for %d events", s.Rounds(), events)
	}
}

// TestSourceReopened: a descriptor that the context closes, and whose number it opens again
// in the same round, is watched as the new file.
func TestSourceReopened(t *testing.T) { hosttest.Backends(t, testSourceReopened) }

func testSourceReopened(t *testing.T, backend weir.LoopOption) {
	t.Helper()
	loop, ctx, _ := host(t, backend)
	pipe := func() (r, w int) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return p[0], p[1]
	}
	fd, first := pipe()
	next, second := pipe()
	defer func() {
		for _, fd := range []int{fd, first, second} {
			_ = unix.Close(fd)
		}
	}()
	read := func() {
		var b [1]byte
		if _, err := unix.Read(fd, b[:]); err != nil {
			t.Error(err)
		}
	}
	ctx.FD(fd, func() bool {
		read()
		if err := errors.Join(unix.Dup3(next, fd, unix.O_CLOEXEC), unix.Close(next)); err != nil {
			t.Error(err)
		}
		ctx.FD(fd, func() bool { read(); loop.Stop(); return false })
		loop.After(20*time.Millisecond, func() { _, _ = unix.Write(second, []byte("x")) })
		return false
	})
	loop.After(20*time.Millisecond, func() { _, _ = unix.Write(first, []byte("x")) })
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
}

// TestSourceThreads: what another thread attaches wakes the loop.
func TestSourceThreads(t *testing.T) { hosttest.Backends(t, testSourceThreads) }

func testSourceThreads(t *testing.T, backend weir.LoopOption) {
	t.Helper()
	loop, ctx, s := host(t, backend)
	rest := make(chan bool)
	go func() {
		<-rest
		ctx.Idle(0, func() bool { loop.Stop(); return false })
	}()
	before := 0
	loop.After(50*time.Millisecond, func() { before = s.Rounds(); rest <- true })
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	if n := s.Rounds() - before; n < 1 || n > 4 {
		t.Errorf("%d rounds for one event", n)
	}
	if before > 4 {
		t.Errorf("%d rounds while nothing happened", before)
	}
}

// TestSourceOwnThread: what a callback of the loop attaches is noticed in a context of
// NewContext, and in any other after Wake.
func TestSourceOwnThread(t *testing.T) { hosttest.Backends(t, testSourceOwnThread) }

func testSourceOwnThread(t *testing.T, backend weir.LoopOption) {
	t.Helper()
	for _, own := range []bool{true, false} {
		loop, err := weir.NewLoop(backend)
		if err != nil {
			t.Fatal(err)
		}
		ctx := gtest.New()
		if own {
			ctx.Free()
			ctx = gtest.From(glib.NewContext())
		}
		s := glib.NewSource(loop, ctx.Pointer())
		if err := loop.AddSource(s); err != nil {
			t.Fatal(err)
		}
		late := loop.After(10*time.Second, func() { t.Errorf("NewContext %v: not noticed", own); loop.Stop() })
		loop.After(20*time.Millisecond, func() {
			ctx.Idle(0, func() bool { loop.Stop(); return false })
			if !own {
				s.Wake()
			}
		})
		if err := loop.Run(); err != nil {
			t.Fatal(err)
		}
		late.Stop()
		if err := loop.Close(); err != nil {
			t.Error(err)
		}
		ctx.Free()
	}
}

// TestSourceRemovedInside: a callback of the context may remove the source.
func TestSourceRemovedInside(t *testing.T) { hosttest.Backends(t, testSourceRemovedInside) }

func testSourceRemovedInside(t *testing.T, backend weir.LoopOption) {
	t.Helper()
	loop, ctx, s := host(t, backend)
	ctx.Idle(0, func() bool {
		if err := loop.RemoveSource(s); err != nil {
			t.Error(err)
		}
		loop.After(10*time.Millisecond, loop.Stop)
		return true
	})
	ctx.Idle(1, func() bool { t.Error("dispatched after RemoveSource"); return false })
	if err := loop.Run(); err != nil {
		t.Fatal(err)
	}
	if !ctx.Acquire() {
		t.Error("the context was not released")
	} else {
		ctx.Release()
	}
}

// TestSourceBusy: a context of another thread is refused.
func TestSourceBusy(t *testing.T) {
	ctx := gtest.New()
	owned, done := make(chan bool), make(chan bool)
	go func() {
		runtime.LockOSThread()
		owned <- ctx.Acquire()
		<-done
		ctx.Release()
		done <- true
	}()
	if !<-owned {
		t.Fatal("the context is not free")
	}
	loop, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	if err := loop.AddSource(glib.NewSource(loop, ctx.Pointer())); !errors.Is(err, glib.ErrBusy) {
		t.Errorf("AddSource: %v, want ErrBusy", err)
	}
	done <- true
	<-done
}
