//go:build linux

package uring

import (
	"bytes"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// rig is a backend under test on a thread of its own.
type rig struct {
	*Backend
	tb   testing.TB
	done []backend.Completion
	buf  map[*backend.Op]*record
}

// record holds what an Op has reported.
type record struct {
	data    []byte
	results int
	n       int // sum of N
	err     error
	ended   bool
}

func newRig(tb testing.TB, c Config) *rig {
	tb.Helper()
	runtime.LockOSThread()
	b, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
		runtime.UnlockOSThread()
	})
	return &rig{Backend: b, tb: tb, done: make([]backend.Completion, 64), buf: map[*backend.Op]*record{}}
}

// arm submits op, which must not finish at once.
func (r *rig) arm(op *backend.Op) *backend.Op {
	r.tb.Helper()
	var c backend.Completion
	if r.Submit(op, &c) {
		r.tb.Fatalf("finished at once: %+v", c)
	}
	r.buf[op] = &record{}
	return op
}

func (r *rig) read(h backend.Handle) *backend.Op {
	r.tb.Helper()
	return r.arm(&backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h})
}

func (r *rig) write(h backend.Handle, f backend.Flags, p ...[]byte) *backend.Op {
	r.tb.Helper()
	return r.arm(&backend.Op{Kind: backend.Write, Flags: f, Handle: h, Vec: p})
}

// turn does one Wait and records what it reports.
func (r *rig) turn(timeout time.Duration) int {
	r.tb.Helper()
	n, err := r.Wait(timeout, r.done)
	if err != nil {
		r.tb.Fatal(err)
	}
	for i := range r.done[:n] {
		c := &r.done[i]
		rec := r.buf[c.Op]
		switch {
		case rec == nil:
			r.tb.Fatalf("a result for an Op nobody armed: %+v", *c)
		case rec.ended:
			r.tb.Fatalf("a result after the last: %+v", *c)
		}
		rec.results++
		rec.n += c.N
		rec.data = append(rec.data, c.Buf...)
		if !c.More {
			rec.ended, rec.err = true, c.Err
		}
	}
	return n
}

// until turns until cond holds.
func (r *rig) until(what string, cond func() bool) {
	r.tb.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); r.turn(100 * time.Millisecond) {
		if time.Now().After(end) {
			r.tb.Fatalf("no %s", what)
		}
	}
}

// cancel ends op and returns what it has reported.
func (r *rig) cancel(op *backend.Op) *record {
	r.tb.Helper()
	if !r.Cancel(op) {
		r.until("last result", func() bool { return r.buf[op].ended })
	}
	rec := r.buf[op]
	delete(r.buf, op)
	return rec
}

// pair returns a handle and the descriptor that it is connected to, on which calls
// block for at most ten seconds.
func (r *rig) pair() (backend.Handle, int) {
	r.tb.Helper()
	s, c := tcpPairs(r.tb, 1)
	return r.adopted(s[0], c[0])
}

// adopted takes both ends of a connection: s goes to the backend, c to the test, whose
// reads give up after 10 s.
func (r *rig) adopted(s, c int) (backend.Handle, int) {
	r.tb.Helper()
	h, err := r.Adopt(s)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { unix.Close(c) })
	limit := unix.Timeval{Sec: 10}
	if err := unix.SetsockoptTimeval(c, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		r.tb.Fatal(err)
	}
	return h, c
}

func (r *rig) send(fd int, p []byte) {
	r.tb.Helper()
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil {
			r.tb.Fatal(err)
		}
		p = p[n:]
	}
}

// receive reads n bytes from fd, or up to the end for n < 0.
func receive(fd, n int) ([]byte, error) {
	var all []byte
	buf := make([]byte, 64<<10)
	for n < 0 || len(all) < n {
		size := len(buf)
		if n >= 0 {
			size = min(size, n-len(all))
		}
		k, err := unix.Read(fd, buf[:size])
		if err == unix.EINTR {
			continue
		}
		if err != nil || k == 0 {
			return all, err
		}
		all = append(all, buf[:k]...)
	}
	return all, nil
}

// pattern returns n bytes that differ by place and seed.
func pattern(n, seed int) []byte {
	p := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}

func wantBytes(tb testing.TB, what string, got, want []byte) {
	tb.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	tb.Fatalf("%s: %d bytes, want %d; they part at %d", what, len(got), len(want), at)
}

// onThread runs f on a thread of its own, which then dies.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

func addr(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) }

// tcpPairs returns n connected pairs of TCP sockets.
func tcpPairs(tb testing.TB, n int) (server, client []int) {
	tb.Helper()
	must := func(err error) {
		if err != nil {
			tb.Helper()
			tb.Fatal(err)
		}
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	defer unix.Close(l)
	must(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(unix.Listen(l, 1024))
	name, err := unix.Getsockname(l)
	must(err)
	for range n {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(err)
		must(unix.Connect(c, name))
		s, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		must(err)
		for _, fd := range []int{c, s} {
			must(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
		}
		server, client = append(server, s), append(client, c)
	}
	return server, client
}
