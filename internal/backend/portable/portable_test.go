package portable

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// Each test runs on both ports: the polled one, if the platform has it, and the
// blocking one, as Windows and foreign connections get it.
func both(t *testing.T, f func(t *testing.T, b *Backend)) {
	for _, blocking := range []bool{false, true} {
		name := "polled"
		if blocking {
			name = "blocking"
		}
		t.Run(name, func(t *testing.T) {
			if !blocking && !polls {
				t.Skip("this platform has no polled port")
			}
			b, err := New()
			if err != nil {
				t.Fatal(err)
			}
			b.blocking = blocking
			f(t, b)
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// result submits op and waits for its result.
func result(t *testing.T, b *Backend, op *backend.Op) backend.Completion {
	t.Helper()
	var c backend.Completion
	if b.Submit(op, &c) {
		return c
	}
	return wait(t, b, op)
}

// wait waits for a result of op and fails on any other.
func wait(t *testing.T, b *Backend, op *backend.Op) backend.Completion {
	t.Helper()
	var done [1]backend.Completion
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		n, err := b.Wait(time.Second, done[:])
		if err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			if done[0].Op != op {
				t.Fatalf("result of another Op: %+v", done[0])
			}
			return done[0]
		}
	}
	t.Fatalf("no result of an Op of kind %d", op.Kind)
	return backend.Completion{}
}

// quiet checks that nothing is reported.
func quiet(t *testing.T, b *Backend) {
	t.Helper()
	var done [4]backend.Completion
	if n, err := b.Wait(0, done[:]); n != 0 || err != nil {
		t.Fatalf("reported %+v, %v", done[:n], err)
	}
}

// pair makes a TCP connection with one end a handle of b.
func pair(t *testing.T, b *Backend) (backend.Handle, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	h, err := b.AdoptConn(near)
	if err != nil {
		t.Fatal(err)
	}
	return h, far.(*net.TCPConn)
}

func TestCanceledReadLosesNothing(t *testing.T) {
	both(t, func(t *testing.T, b *Backend) {
		h, far := pair(t, b)
		op := backend.Op{Kind: backend.Read, Handle: h}
		var c backend.Completion
		if b.Submit(&op, &c) {
			t.Fatalf("a read of nothing finished: %+v", c)
		}
		if !op.Armed() || !b.Cancel(&op) || op.Armed() || b.Cancel(&op) {
			t.Fatal("an armed Op can be canceled once")
		}
		if _, err := far.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		// The blocking port's reader is still in its Read: what it gets is kept.
		var got []byte
		for len(got) < 5 {
			c := result(t, b, &op)
			if c.Err != nil || c.N == 0 {
				t.Fatalf("%+v", c)
			}
			got = append(got, c.Buf...)
		}
		if string(got) != "hello" {
			t.Fatalf("got %q", got)
		}
		quiet(t, b)
	})
}

func TestCanceledReadLeavesMemoryAlone(t *testing.T) {
	both(t, func(t *testing.T, b *Backend) {
		h, far := pair(t, b)
		mine := make([]byte, 8)
		op := backend.Op{Kind: backend.Read, Handle: h, Buf: mine}
		var c backend.Completion
		if b.Submit(&op, &c) || !b.Cancel(&op) {
			t.Fatal("submit and cancel")
		}
		if _, err := far.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		op.Buf = make([]byte, 8)
		if c := result(t, b, &op); c.Err != nil || &c.Buf[0] != &op.Buf[0] || string(c.Buf) != "hello"[:c.N] {
			t.Fatalf("%+v", c)
		}
		if !bytes.Equal(mine, make([]byte, 8)) {
			t.Fatalf("memory of a canceled read was written: %q", mine)
		}
	})
}

func TestMultiReadUntilTheEnd(t *testing.T) {
	both(t, func(t *testing.T, b *Backend) {
		h, far := pair(t, b)
		sent := make([]byte, 1<<20)
		_, _ = rand.Read(sent)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = far.Write(sent)
			_ = far.CloseWrite()
		})
		op := backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: h}
		var got []byte
		for c := result(t, b, &op); ; c = wait(t, b, &op) {
			if c.Err != nil {
				t.Fatal(c.Err)
			}
			if c.More != (c.N > 0) || c.More != op.Armed() {
				t.Fatalf("N %d, More %v, armed %v", c.N, c.More, op.Armed())
			}
			if c.N == 0 {
				break
			}
			got = append(got, c.Buf...)
		}
		wg.Wait()
		if !bytes.Equal(got, sent) {
			t.Fatalf("got %d bytes of %d", len(got), len(sent))
		}
	})
}

func TestCloseSendsWhatWasWritten(t *testing.T) {
	both(t, func(t *testing.T, b *Backend) {
		h, far := pair(t, b)
		sent := make([]byte, 4<<20)
		_, _ = rand.Read(sent)
		got := make(chan []byte)
		go func() {
			all, _ := io.ReadAll(far)
			got <- all
		}()
		left := sent
		op := backend.Op{Kind: backend.Write, Handle: h}
		for len(left) > 0 {
			op.Vec = [][]byte{nil, left[:1], left[1:]}
			c := result(t, b, &op)
			if c.Err != nil || c.N == 0 {
				t.Fatalf("%+v", c)
			}
			left = left[c.N:]
		}
		if err := b.Shut(h, backend.CloseFlat); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(<-got, sent) {
			t.Fatal("bytes were lost by the close")
		}
	})
}

func TestWriteWithNobodyReading(t *testing.T) {
	both(t, func(t *testing.T, b *Backend) {
		h, far := pair(t, b)
		op := backend.Op{Kind: backend.Write, Handle: h, Vec: [][]byte{make([]byte, 1<<20)}}
		var c backend.Completion
		total := 0
		for {
			if !b.Submit(&op, &c) {
				// The blocking port's writer may yet make room.
				var done [1]backend.Completion
				n, err := b.Wait(300*time.Millisecond, done[:])
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 && b.Cancel(&op) {
					break
				}
				if n == 0 { // it was written meanwhile
					done[0] = wait(t, b, &op)
				}
				c = done[0]
			}
			if c.Err != nil {
				t.Fatal(c.Err)
			}
			total += c.N
		}
		now := op
		now.Flags = backend.Now
		for {
			// The kernel takes a little more than it announces.
			if !b.Submit(&now, &c) {
				t.Fatal("a write that must not wait does")
			}
			if errors.Is(c.Err, backend.ErrAgain) {
				break
			}
			if c.Err != nil {
				t.Fatal(c.Err)
			}
			total += c.N
		}
		if err := b.Shut(h, backend.ShutWrite); err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, far)
		if err != nil || int(n) != total {
			t.Fatalf("%d of %d bytes arrived, %v", n, total, err)
		}
	})
}

func TestReset(t *testing.T) {
	both(t, func(t *testing.T, b *Backend) {
		h, far := pair(t, b)
		if err := far.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		op := backend.Op{Kind: backend.Read, Handle: h}
		var c backend.Completion
		if b.Submit(&op, &c) {
			t.Fatalf("%+v", c)
		}
		far.Close()
		c = wait(t, b, &op)
		if runtime.GOOS == "windows" && c.Err == nil {
			t.Skip("the system ended the connection before it reset it, as wine does")
		}
		if !errors.Is(c.Err, syscall.ECONNRESET) {
			t.Fatalf("%+v", c)
		}
		h2, far2 := pair(t, b)
		if err := b.Shut(h2, backend.CloseReset); err != nil {
			t.Fatal(err)
		}
		_, err := far2.Read(make([]byte, 1))
		if runtime.GOOS == "windows" && errors.Is(err, io.EOF) {
			t.Skip("the system ended the connection before it reset it, as wine does")
		}
		if !errors.Is(errno(err), syscall.ECONNRESET) {
			t.Fatalf("the peer of a reset got %v", err)
		}
	})
}

func TestRefused(t *testing.T) {
	both(t, func(t *testing.T, b *Backend) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		to := addrOf(ln.Addr())
		ln.Close()
		h, err := b.Open(&backend.Spec{Family: backend.Inet})
		if err != nil {
			t.Fatal(err)
		}
		op := backend.Op{Kind: backend.Connect, Handle: h, Addr: &to}
		if c := result(t, b, &op); !errors.Is(c.Err, syscall.ECONNREFUSED) {
			t.Fatalf("%+v", c)
		}
	})
}

// A connection that has nothing but the three methods.
type bare struct{ io.ReadWriteCloser }

func TestForeignConnection(t *testing.T) {
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	h, err := b.AdoptConn(bare{near})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := b.Name(h, true); err != nil || a.Family != backend.FamilyNone {
		t.Fatalf("a name out of nowhere: %v, %v", a, err)
	}
	if err := b.Shut(h, backend.ShutWrite); !errors.Is(err, backend.ErrUnsupported) {
		t.Fatalf("half-close of what has none: %v", err)
	}
	w := backend.Op{Kind: backend.Write, Handle: h, Vec: [][]byte{[]byte("ping")}}
	if c := result(t, b, &w); c.N != 4 || c.Err != nil {
		t.Fatalf("%+v", c)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(far, buf); err != nil || string(buf) != "ping" {
		t.Fatalf("%q, %v", buf, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { // net.Pipe has no buffer
		_, _ = far.Write([]byte("pong"))
		_ = far.Close()
	})
	r := backend.Op{Kind: backend.Read, Handle: h}
	if c := result(t, b, &r); string(c.Buf) != "pong" || c.Err != nil {
		t.Fatalf("%+v", c)
	}
	if c := result(t, b, &r); c.N != 0 || c.Err != nil {
		t.Fatalf("the end of the stream is %+v", c)
	}
	wg.Wait()
	if c := result(t, b, &w); c.Err != nil {
		t.Fatalf("a write that the buffer takes: %v", c.Err)
	}
	hang := backend.Op{Kind: backend.Hangup, Handle: h}
	if c := result(t, b, &hang); !errors.Is(c.Err, syscall.EPIPE) {
		t.Fatalf("hang-up of a closed pipe: %+v", c)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.AdoptConn("no connection"); err == nil {
		t.Fatal("a string was adopted")
	}
}

func TestForeignListener(t *testing.T) {
	both(t, func(t *testing.T, b *Backend) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		h, err := b.AdoptConn(ln)
		if err != nil {
			t.Fatal(err)
		}
		op := backend.Op{Kind: backend.Accept, Flags: backend.Multi, Handle: h}
		var c backend.Completion
		if b.Submit(&op, &c) {
			t.Fatalf("%+v", c)
		}
		for range 3 {
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			c := wait(t, b, &op)
			if c.Err != nil || !c.More || c.Peer == nil || c.Peer.IP.String() != conn.LocalAddr().String() {
				t.Fatalf("%+v", c)
			}
		}
		if !b.Cancel(&op) {
			t.Fatal("an armed accept can be canceled")
		}
		if err := b.Shut(h, backend.CloseFlat); err != nil {
			t.Fatal(err)
		}
		if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
			t.Fatal("the listener still listens")
		}
	})
}

func TestDetach(t *testing.T) {
	both(t, func(t *testing.T, b *Backend) {
		h, far := pair(t, b)
		conn, err := b.Detach(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Name(h, true); err == nil {
			t.Fatal("a detached handle has a name")
		}
		if _, err := b.Detach(h); err == nil {
			t.Fatal("a handle was detached twice")
		}
		other, err := New()
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		h, err = other.AdoptConn(conn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write([]byte("moved")); err != nil {
			t.Fatal(err)
		}
		op := backend.Op{Kind: backend.Read, Handle: h}
		if c := result(t, other, &op); string(c.Buf) != "moved" {
			t.Fatalf("%+v", c)
		}
	})
}
