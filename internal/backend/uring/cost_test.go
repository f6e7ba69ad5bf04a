//go:build linux

package uring

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// The cost of a message, in calls and allocations.

// An exchange is one read and one write (R20). With one connection each has to
// sleep once, and that is the only system call.
func TestCallsOfPingPong(t *testing.T) {
	_, calls, _ := runEcho(t, 1, 64, 1, 300*time.Millisecond, onUring(Config{}, backend.Quiet))
	t.Logf("%.3f system calls", calls)
	if calls > 1.05 {
		t.Errorf("%.3f system calls per exchange", calls)
	}
}

// With many active connections, one system call serves some twenty of them: as many as
// the kernel completes per call.
func TestCallsOfMany(t *testing.T) {
	r := newRig(t, Config{})
	const conns, rounds, size = 1000, 5, 64
	server, client := tcpPairs(t, conns)
	msg := pattern(size, 1)
	type conn struct {
		rd, wr backend.Op
		vec    [1][]byte
	}
	all := make([]conn, conns)
	byOp := make(map[*backend.Op]*conn)
	var c backend.Completion
	for i, fd := range server {
		h, err := r.Adopt(fd)
		if err != nil {
			t.Fatal(err)
		}
		all[i].rd = backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h}
		all[i].wr = backend.Op{Kind: backend.Write, Flags: backend.Quiet, Handle: h}
		byOp[&all[i].rd] = &all[i]
		r.Submit(&all[i].rd, &c)
	}
	if _, err := r.Wait(0, r.done); err != nil {
		t.Fatal(err)
	}
	r.verifier.list, r.verifier.at = nil, nil // its calls are per second, not per message
	before := r.Stats()
	for range rounds {
		for _, fd := range client {
			r.send(fd, msg)
		}
		for served := 0; served < conns; {
			n, err := r.Wait(time.Second, r.done)
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			for i := range r.done[:n] {
				d := &r.done[i]
				if k := byOp[d.Op]; k != nil {
					served++
					k.vec[0] = d.Buf
					k.wr.Vec = k.vec[:]
					r.Submit(&k.wr, &c)
				}
			}
		}
		if _, err := r.Wait(0, r.done); err != nil {
			t.Fatal(err)
		}
		for _, fd := range client {
			if p, err := receive(fd, size); err != nil || len(p) != size {
				t.Fatal(len(p), err)
			}
		}
	}
	after := r.Stats()
	calls := float64(after.Enters-before.Enters+after.Calls-before.Calls) / (conns * rounds)
	t.Logf("%.3f system calls", calls)
	if calls > 0.1 {
		t.Errorf("%.3f system calls per exchange, the limit is 0.1", calls)
	}
	for _, fd := range client {
		unix.Close(fd)
	}
}

// A reader of a stream of large pieces that pauses after each of them costs one
// submission per piece, and none for the pauses.
func TestPausesOfBulk(t *testing.T) {
	r := newRig(t, Config{})
	h, c := r.pair()
	piece := pattern(2*bulk, 1)
	rd := backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h}
	var result backend.Completion
	received, reads := 0, uint64(0)
	round := func() {
		r.Submit(&rd, &result)
		want := received + len(piece)
		r.send(c, piece)
		for received < want {
			n, err := r.Wait(time.Second, r.done)
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			for _, d := range r.done[:n] {
				received += d.N
				reads++
			}
		}
		for r.Cancel(&rd); rd.State != 0; {
			if _, err := r.Wait(time.Second, r.done); err != nil {
				t.Fatal(err)
			}
		}
	}
	round()
	before, reads0 := r.Stats(), reads
	const rounds = 20
	for range rounds {
		round()
	}
	if n := r.Stats().Submissions - before.Submissions; n > reads-reads0 {
		t.Errorf("%d submissions for %d reads", n, reads-reads0)
	}
}

// Nothing is allocated for a message (R6).
func TestAllocations(t *testing.T) {
	r := newRig(t, Config{})
	h, c := r.pair()
	msg := pattern(64, 1)
	rd := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h}
	wr := &backend.Op{Kind: backend.Write, Flags: backend.Quiet, Handle: h}
	vec := make([][]byte, 2)
	buf := make([]byte, 2*len(msg))
	var result backend.Completion
	r.Submit(rd, &result)
	exchange := func() {
		if _, err := unix.Write(c, msg); err != nil {
			t.Fatal(err)
		}
		got := 0
		for got < len(msg) {
			n, err := r.Wait(time.Second, r.done)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range r.done[:n] {
				if d.Op != rd {
					continue
				}
				got += d.N
				vec[0], vec[1] = d.Buf, msg
				wr.Vec = vec
				r.Submit(wr, &result)
			}
		}
		for wr.Armed() {
			if _, err := r.Wait(0, r.done); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := unix.Read(c, buf); n != len(buf) || err != nil {
			t.Fatal(n, err)
		}
	}
	for range 100 {
		exchange()
	}
	if n := testing.AllocsPerRun(1000, exchange); n != 0 {
		t.Errorf("%v allocations per exchange", n)
	}
}

// A Wake costs a system call only if a Wait sleeps, and then just one.
func TestWakeCalls(t *testing.T) {
	r := newRig(t, Config{})
	for range 1000 {
		r.Wake()
	}
	if n := r.waker.calls.Load(); n != 0 {
		t.Errorf("%d system calls to wake a loop that is awake", n)
	}
	r.turn(-1) // takes it
	for range 100 {
		before := r.waker.calls.Load()
		go func() {
			for r.waker.state.Load() != asleep {
				runtime.Gosched()
			}
			for range 5 {
				r.Wake()
			}
		}()
		for r.waker.calls.Load() == before { // a remnant of the last one may end it
			r.turn(time.Second)
		}
		r.turn(0)
		if n := r.waker.calls.Load() - before; n > 2 {
			t.Fatalf("%d system calls for five wakes", n)
		}
	}
}

// An idle loop asks the kernel for nothing, and one that polls without waiting
// does so without a system call.
func TestIdleCalls(t *testing.T) {
	r := newRig(t, Config{})
	h, _ := r.pair()
	r.read(h)
	r.turn(0)
	r.turn(250 * time.Millisecond) // descriptors from outside are verified once
	before := r.Stats()
	for range 1000 {
		r.verifier.left = 0
		r.turn(0)
	}
	if after := r.Stats(); after.Enters != before.Enters || after.Calls-before.Calls > 20 {
		t.Errorf("1000 polls made %d enters and %d other calls", after.Enters-before.Enters, after.Calls-before.Calls)
	}
	before = r.Stats()
	r.turn(300 * time.Millisecond)
	if after := r.Stats(); after.Enters-before.Enters > 5 {
		t.Errorf("%d enters while idle", after.Enters-before.Enters)
	}
}

// The garbage collector and the loop do not hold each other up, whether the loop sleeps
// or works all the time, on one processor and on two.
func TestGarbageCollection(t *testing.T) {
	for _, procs := range []int{1, 2} {
		for _, idle := range []bool{true, false} {
			t.Run(fmt.Sprintf("procs=%d,idle=%t", procs, idle), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
				b, err := New(Config{})
				if err != nil {
					t.Fatal(err)
				}
				var stop atomic.Bool
				served := make(chan error, 1)
				conns := 8
				if idle {
					conns = 0
				}
				server, client := tcpPairs(t, conns)
				var messages atomic.Int64
				go func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					n, err := echoServer(b, server, backend.Quiet, 64, &stop)
					messages.Add(int64(n))
					if e := b.Close(); err == nil {
						err = e
					}
					served <- err
				}()
				loaded := make(chan struct{})
				go func() {
					load(client, 64, 1, &stop)
					close(loaded)
				}()
				var worst time.Duration
				for range 20 {
					start := time.Now()
					runtime.GC()
					worst = max(worst, time.Since(start))
				}
				stop.Store(true)
				b.Wake()
				<-loaded
				if err := <-served; err != nil {
					t.Fatal(err)
				}
				for _, fd := range client {
					unix.Close(fd)
				}
				t.Logf("slowest collection %v, %d messages meanwhile", worst, messages.Load())
				if worst > time.Second {
					t.Errorf("a collection took %v", worst)
				}
				if !idle && messages.Load() == 0 {
					t.Error("no message was served")
				}
			})
		}
	}
}
