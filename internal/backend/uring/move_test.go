//go:build linux

package uring

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// A loop that continues on another thread loses nothing: reads, accepts, writes that
// wait, polls and cancellations in flight come along.
func TestMove(t *testing.T) {
	for _, k := range configs {
		t.Run(k.name, func(t *testing.T) {
			r := newRig(t, k.config)
			h, c := r.pair()
			full, slow := r.pair()
			calm, _ := r.pair()
			quit, _ := r.pair()
			const size, rounds = 300_000, 8
			want := pattern(size, 5)
			var wg sync.WaitGroup
			wg.Go(func() {
				for rest := want; len(rest) > 0; {
					n, err := unix.Write(c, rest[:min(len(rest), 1000)])
					if err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
			})
			rd := r.read(h)
			idle := r.read(calm)
			gone := r.read(quit)
			// More than fits: it waits across all moves.
			block := pattern(4<<20, 6)
			sent := 0
			wr := r.write(full, 0, block)
			for r.turn(20 * time.Millisecond); r.buf[wr].ended; r.turn(20 * time.Millisecond) {
				sent += r.buf[wr].n
				wr = r.write(full, 0, block)
			}
			if r.Cancel(gone) { // otherwise the kernel has yet to be told
				r.buf[gone].ended, r.buf[gone].err = true, backend.ErrCanceled
			}
			for i := range rounds {
				onThread(func() {
					r.turn(10 * time.Millisecond)
					if i == 0 && !r.buf[gone].ended {
						r.until("cancellation", func() bool { return r.buf[gone].ended })
					}
				})
			}
			r.until("stream", func() bool { return r.buf[rd].n >= size })
			wg.Wait()
			wantBytes(t, "stream", r.buf[rd].data, want)
			if rec := r.buf[idle]; rec.results != 0 || !idle.Armed() {
				t.Errorf("the idle one: %+v", rec)
			}
			if rec := r.buf[gone]; rec.err != backend.ErrCanceled {
				t.Errorf("the canceled one: %+v", rec)
			}
			for r.buf[wr].ended { // the system made more room
				sent += r.buf[wr].n
				wr = r.write(full, 0, block)
				r.turn(20 * time.Millisecond)
			}
			done := make(chan int)
			go func() {
				p, err := receive(slow, sent+1)
				if err != nil {
					t.Error(err)
				}
				done <- len(p)
			}()
			r.until("write", func() bool { return r.buf[wr].ended })
			if n := <-done; n != sent+1 || r.buf[wr].err != nil {
				t.Errorf("the slow peer got %d of more than %d, the write %+v", n, sent, r.buf[wr])
			}
			if k.config.Without&SingleIssuer == 0 && r.stats.Moves < rounds {
				t.Errorf("%d moves", r.stats.Moves)
			}
		})
	}
}

// Close may come from any thread, and ends everything from there too.
func TestCloseElsewhere(t *testing.T) {
	before := openDescriptors(t)
	var peers []int
	onThread(func() {
		b, err := New(Config{})
		if err != nil {
			t.Error(err)
			return
		}
		server, client := tcpPairs(t, 3)
		peers = client
		var c backend.Completion
		done := make([]backend.Completion, 4)
		ops := make([]backend.Op, len(server))
		for i, fd := range server {
			h, err := b.Adopt(fd)
			if err != nil {
				t.Error(err)
			}
			ops[i] = backend.Op{Kind: backend.Read, Handle: h, Buf: make([]byte, 100)}
			b.Submit(&ops[i], &c)
		}
		if _, err := b.Wait(0, done); err != nil {
			t.Error(err)
		}
		onThread(func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
		b.Wake()
		for i := range ops {
			if ops[i].Armed() {
				t.Error("still armed")
			}
		}
		if _, err := b.Wait(0, done); err == nil {
			t.Error("Wait after Close")
		}
	})
	for _, fd := range peers {
		if p, err := receive(fd, -1); len(p) != 0 || err != nil {
			t.Errorf("a peer read %q, %v", p, err)
		}
		unix.Close(fd)
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// The descriptor that a host watches shows data, wakes and what was submitted
// meanwhile, without a Wait in progress.
func TestHost(t *testing.T) {
	for _, k := range configs {
		t.Run(k.name, func(t *testing.T) {
			r := newRig(t, k.config)
			readable := func(wait time.Duration) bool {
				p := []unix.PollFd{{Fd: int32(r.Caps().PollFD), Events: unix.POLLIN}}
				for {
					n, err := unix.Poll(p, int(wait/time.Millisecond))
					if err != syscall.EINTR {
						return n > 0
					}
				}
			}
			settle := func() {
				t.Helper()
				for i := 0; readable(0); i++ {
					if i > 100 {
						t.Fatal("the descriptor stays readable")
					}
					r.turn(0)
				}
			}
			h, c := r.pair()
			rd := r.read(h) // before there is a host
			r.Host(true)
			settle()
			r.send(c, []byte("one"))
			if !readable(time.Second) {
				t.Fatal("data does not show")
			}
			settle()
			if string(r.buf[rd].data) != "one" {
				t.Fatalf("read %q", r.buf[rd].data)
			}
			go r.Wake()
			if !readable(time.Second) {
				t.Fatal("a wake does not show")
			}
			settle()
			wr := r.write(h, 0, []byte("two"))
			if p, err := receive(c, 3); string(p) != "two" || err != nil {
				t.Fatalf("the peer read %q, %v", p, err)
			}
			if !readable(time.Second) {
				t.Fatal("a write that is done does not show")
			}
			settle()
			if !r.buf[wr].ended {
				t.Fatal("the write is not reported")
			}
			// A result that does not come from the kernel.
			bad := r.arm(&backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: 9999})
			if !readable(time.Second) {
				t.Fatal("a refusal does not show")
			}
			settle()
			if r.buf[bad].err != syscall.EBADF {
				t.Fatalf("%+v", r.buf[bad])
			}
			r.Host(false)
			before := r.waker.calls.Load()
			r.Wake()
			if r.waker.calls.Load() != before {
				t.Error("a wake without host or sleep made a system call")
			}
		})
	}
}
