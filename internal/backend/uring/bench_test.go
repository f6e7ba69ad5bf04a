//go:build linux

package uring

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/epoll"
)

// The benchmarks here show what the backend costs without a loop above it: an echo
// server of a few lines on the contract is compared with the same on epoll and with
// minimal programs that use system calls directly. The load runs on a thread of its
// own; the result is the CPU time per message of the server's thread. Only ratios
// within one run count, not absolute figures.

// echoConn is one connection of the contract's echo server.
type echoConn struct {
	rd, wr  backend.Op
	vec     [1][]byte
	out     []byte
	pending []byte
}

func (e *echoConn) OpDone(*backend.Completion) {}

// echoServer serves b until stop, and returns how many messages it echoed.
func echoServer(b backend.Backend, fds []int, quiet backend.Flags, size int, stop *atomic.Bool) (int, error) {
	var c backend.Completion
	for _, fd := range fds {
		h, err := b.Adopt(fd)
		if err != nil {
			return 0, err
		}
		e := &echoConn{out: make([]byte, 0, 256<<10)}
		e.rd = backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h, Owner: e}
		e.wr = backend.Op{Kind: backend.Write, Flags: quiet, Handle: h, Owner: e}
		b.Submit(&e.rd, &c)
	}
	send := func(e *echoConn) {
		for len(e.out) > 0 && !e.wr.Armed() {
			e.pending, e.out = e.out, e.pending[:0]
			e.vec[0] = e.pending
			e.wr.Vec = e.vec[:]
			if b.Submit(&e.wr, &c) && c.N < len(e.pending) {
				e.out = append(e.out, e.pending[c.N:]...)
			}
		}
	}
	bytes := 0
	done := make([]backend.Completion, 256)
	for !stop.Load() {
		b.Now()
		n, err := b.Wait(-1, done)
		if err != nil {
			return 0, err
		}
		b.Now()
		for i := range done[:n] {
			r := &done[i]
			e := r.Op.Owner.(*echoConn)
			switch {
			case r.Err != nil && r.Err != backend.ErrAgain:
				return 0, r.Err
			case r.Op == &e.rd:
				bytes += r.N
				e.out = append(e.out, r.Buf...)
				if !r.More {
					b.Submit(&e.rd, &c)
				}
				send(e)
			case r.N < len(e.pending):
				rest := append([]byte(nil), e.pending[r.N:]...)
				e.out = append(rest, e.out...)
				send(e)
			default:
				send(e)
			}
		}
	}
	return bytes / size, nil
}

// bareEpoll is a minimal echo server on level-triggered epoll.
func bareEpoll(fds []int, size int, stop *atomic.Bool) int {
	ep, _ := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	defer unix.Close(ep)
	for _, fd := range fds {
		unix.SetNonblock(fd, true)
		unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	buf := make([]byte, 64<<10)
	events := make([]unix.EpollEvent, 256)
	last := time.Now()
	bytes := 0
	for !stop.Load() {
		if t := time.Now(); t.Sub(last) > quantum {
			runtime.Gosched()
			last = t
		}
		n, err := unix.EpollWait(ep, events, -1)
		if err == unix.EINTR {
			continue
		}
		for _, ev := range events[:n] {
			k, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(ev.Fd), addr(buf), uintptr(len(buf)), unix.MSG_DONTWAIT, 0, 0)
			if errno != 0 {
				continue
			}
			bytes += int(k)
			for at := 0; at < int(k); {
				w, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(ev.Fd), addr(buf[at:k]), k-uintptr(at), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
				if errno == 0 {
					at += int(w)
				}
			}
		}
	}
	return bytes / size
}

// load keeps depth messages of size bytes in flight on each connection, until
// stop.
func load(fds []int, size, depth int, stop *atomic.Bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ep, _ := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	defer unix.Close(ep)
	msg := make([]byte, size*depth)
	buf := make([]byte, 256<<10)
	got := make(map[int32]int, len(fds))
	send := func(fd int32, p []byte) {
		for len(p) > 0 && !stop.Load() {
			w, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), addr(p), uintptr(len(p)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, 0, 0)
			if errno == 0 {
				p = p[w:]
			} else if errno == unix.EAGAIN {
				pf := []unix.PollFd{{Fd: fd, Events: unix.POLLOUT}}
				unix.Poll(pf, 10)
			}
		}
	}
	for _, fd := range fds {
		unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
		send(int32(fd), msg)
	}
	events := make([]unix.EpollEvent, 256)
	for !stop.Load() {
		n, _ := unix.EpollWait(ep, events, 100)
		for _, ev := range events[:max(n, 0)] {
			k, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(ev.Fd), addr(buf), uintptr(len(buf)), unix.MSG_DONTWAIT, 0, 0)
			if errno != 0 {
				continue
			}
			got[ev.Fd] += int(k)
			if m := got[ev.Fd] / size * size; m > 0 {
				got[ev.Fd] -= m
				for m > 0 {
					k := min(m, len(msg))
					send(ev.Fd, msg[:k])
					m -= k
				}
			}
		}
	}
}

func threadCPU() time.Duration {
	var ru unix.Rusage
	unix.Getrusage(unix.RUSAGE_THREAD, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

type echoServerFunc func(fds []int, size int, stop *atomic.Bool) (messages int, calls uint64, err error)

func runEcho(tb testing.TB, conns, size, depth int, for_ time.Duration, serve echoServerFunc) (perMsg, calls float64, rate float64) {
	server, client := tcpPairs(tb, conns)
	defer func() {
		for _, fd := range client {
			unix.Close(fd)
		}
	}()
	var stop, stopLoad atomic.Bool
	type result struct {
		n     int
		calls uint64
		cpu   time.Duration
		err   error
	}
	out := make(chan result)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		start := threadCPU()
		n, calls, err := serve(server, size, &stop)
		out <- result{n, calls, threadCPU() - start, err}
	}()
	loaded := make(chan struct{})
	begin := time.Now()
	go func() { load(client, size, depth, &stopLoad); close(loaded) }()
	<-time.After(for_)
	stop.Store(true)
	var r result
	select {
	case r = <-out:
	case <-time.After(5 * time.Second):
		tb.Fatal("server does not stop")
	}
	took := time.Since(begin)
	stopLoad.Store(true)
	<-loaded
	if r.err != nil {
		tb.Fatal(r.err)
	}
	return float64(r.cpu.Nanoseconds()) / float64(r.n) / 1000, float64(r.calls) / float64(r.n), float64(r.n) / took.Seconds()
}

func onUring(c Config, quiet backend.Flags) echoServerFunc {
	return func(fds []int, size int, stop *atomic.Bool) (int, uint64, error) {
		b, err := New(c)
		if err != nil {
			return 0, 0, err
		}
		defer b.Close()
		n, err := echoServer(b, fds, quiet, size, stop)
		s := b.Stats()
		return n, s.Enters + s.Calls, err
	}
}

func onEpoll(fds []int, size int, stop *atomic.Bool) (int, uint64, error) {
	b, err := epoll.New(false)
	if err != nil {
		return 0, 0, err
	}
	defer b.Close()
	n, err := echoServer(b, fds, 0, size, stop)
	return n, 0, err
}

func onBareEpoll(fds []int, size int, stop *atomic.Bool) (int, uint64, error) {
	n := bareEpoll(fds, size, stop)
	for _, fd := range fds {
		unix.Close(fd)
	}
	return n, 0, nil
}

// BenchmarkEcho compares backends. Run it with -benchtime 1x and -count 5, and
// compare within one run.
func BenchmarkEcho(b *testing.B) {
	peers := []struct {
		name  string
		serve echoServerFunc
	}{
		{"bare-epoll", onBareEpoll},
		{"epoll", onEpoll},
		{"uring", onUring(Config{}, backend.Quiet)},
		{"uring-loud", onUring(Config{}, 0)},
		{"uring-any-thread", onUring(Config{Without: SingleIssuer}, backend.Quiet)},
		{"uring-whole-buffers", onUring(Config{Without: Incremental}, backend.Quiet)},
		{"uring-single-shot", onUring(Config{Without: MultiRecv}, backend.Quiet)},
	}
	for _, k := range []struct{ conns, size, depth int }{
		{1, 64, 1}, {64, 64, 1}, {1000, 64, 1}, {64, 64, 16}, {1000, 64, 16}, {64, 16 << 10, 1}, {64, 64 << 10, 1},
	} {
		for _, p := range peers {
			b.Run(fmt.Sprintf("conns=%d/size=%d/depth=%d/%s", k.conns, k.size, k.depth, p.name), func(b *testing.B) {
				var cpu, calls, rate float64
				for range b.N {
					c, n, r := runEcho(b, k.conns, k.size, k.depth, 700*time.Millisecond, p.serve)
					cpu, calls, rate = cpu+c, calls+n, rate+r
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(cpu/float64(b.N), "cpu-µs/msg")
				b.ReportMetric(calls/float64(b.N), "calls/msg")
				b.ReportMetric(rate/float64(b.N), "msg/s")
			})
		}
	}
}
