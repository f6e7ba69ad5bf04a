package netconn_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// soon is a deadline that is only met if something is broken.
func soon() time.Time { return time.Now().Add(20 * time.Second) }

// pattern is n bytes that show their position.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8*3 + i>>16*5)
	}
	return p
}

// TestBackpressure: a reader that does not read stops the writer, with a bounded
// number of bytes between them, and loses none (R30, G3).
func TestBackpressure(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		a, b := dialled("unix")(t, newLoop(t), newLoop(t))
		defer a.Close()
		defer b.Close()
		piece := pattern(10_000)
		sent := 0
		// A write that times out halfway loses nothing: its count is exact.
		for {
			if err := a.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			n, err := a.Write(piece[sent%len(piece):])
			sent += n
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			// Two boxes, the transport's mark plus one write, two socket buffers, and a
			// kept tail at the reader.
			if sent > 4<<20 {
				t.Fatalf("%d bytes were taken and nobody reads", sent)
			}
		}
		if err := a.SetWriteDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		go func() {
			if _, err := a.Write(pattern(1_000_000)); err != nil {
				t.Error(err)
			}
			_ = a.Close()
		}()
		got, err := io.ReadAll(b)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != sent+1_000_000 {
			t.Fatalf("%d bytes arrived of %d", len(got), sent+1_000_000)
		}
		for i := 0; i < sent; i += len(piece) {
			if n := min(len(piece), sent-i); !bytes.Equal(got[i:i+n], piece[:n]) {
				t.Fatalf("wrong bytes behind byte %d", i)
			}
		}
		if !bytes.Equal(got[sent:], pattern(1_000_000)) {
			t.Error("wrong bytes at the end")
		}
	})
}

// TestHalfClose: the request's end is sent, the reply still arrives (R32,
// behaviour 27).
func TestHalfClose(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		a, b := dialled("tcp")(t, l, l)
		defer a.Close()
		defer b.Close()
		client := a.(*netconn.Conn)
		if !client.CanCloseWrite() {
			t.Fatal("TCP can half-close")
		}
		request := pattern(500_000)
		go func() {
			if _, err := client.Write(request); err != nil {
				t.Error(err)
			}
			for range 2 { // calling it again has no effect
				if err := client.CloseWrite(); err != nil {
					t.Error(err)
				}
			}
			if n, err := client.Write([]byte("more")); n != 0 || !errors.Is(err, weir.ErrWriteAfterEOF) {
				t.Errorf("write after the end: %d, %v", n, err)
			}
		}()
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, request) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(request), err)
		}
		if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // readers compare with ==
			t.Errorf("the end is said again: %d, %v", n, err)
		}
		if _, err := b.Write([]byte("reply")); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(client); err != nil || string(got) != "reply" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestNoHalfClose: a transport that cannot half-close says so beforehand (behaviour 45).
func TestNoHalfClose(t *testing.T) {
	l := startLoop(t)
	x, y := net.Pipe()
	defer y.Close()
	c := on(t, l, func() (*netconn.Conn, error) {
		c := netconn.New(l)
		_, err := netconn.Attach(l, x, func(weir.Transport) weir.Protocol { return c.Protocol() })
		return c, err
	})
	defer c.Close()
	if c.CanCloseWrite() {
		t.Error("net.Pipe has no half-close")
	}
	if err := c.CloseWrite(); !errors.Is(err, weir.ErrNoHalfClose) {
		t.Errorf("got %v", err)
	}
}

// TestCloseFlushes: what was written before Close arrives, however slow the
// reader (behaviour 24), and calls in progress and later ones fail.
func TestCloseFlushes(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		a, b := dialled("tcp")(t, l, l)
		defer b.Close()
		read := make(chan error, 1)
		go func() {
			_, err := a.Read(make([]byte, 1))
			read <- err
		}()
		all := pattern(4 << 20)
		go func() {
			if _, err := a.Write(all); err != nil {
				t.Error(err)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}()
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, all) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(all), err)
		}
		for what, err := range map[string]error{
			"the read in progress": <-read,
			"read":                 second(a.Read(make([]byte, 1))),
			"write":                second(a.Write([]byte("x"))),
			"close":                a.Close(),
			"half-close":           a.(*netconn.Conn).CloseWrite(),
			"deadline":             a.SetDeadline(time.Time{}),
		} {
			var op *net.OpError
			if !errors.Is(err, net.ErrClosed) || !errors.As(err, &op) {
				t.Errorf("%s after Close: %v (%T)", what, err, err)
			}
		}
		if a.LocalAddr().String() != b.RemoteAddr().String() || a.RemoteAddr().String() != b.LocalAddr().String() {
			t.Errorf("addresses after the close: %v %v and %v %v", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
		}
	})
}

func second(_ int, err error) error { return err }

// TestReset: an abort reaches the peer's reader and writer as ECONNRESET (behaviour
// 29), after the bytes received before.
func TestReset(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		a, b := dialled("tcp")(t, l, l)
		defer b.Close()
		if _, err := b.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(a, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		a.(*netconn.Conn).Abort()
		a.(*netconn.Conn).Abort()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		// The reader has seen the loss, so the writer does too.
		if n, err := b.Write([]byte("x")); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %d, %v", n, err)
		}
	})
}

// TestResetOfWriter: code that only writes to a peer that is gone learns of it as soon
// as the loop does, and nothing piles up until then (R30, behaviours 29 and 59).
func TestResetOfWriter(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		a, b := dialled("tcp")(t, newLoop(t), newLoop(t))
		defer b.Close()
		go func() { // a peer that has read something first
			_, _ = io.ReadFull(a, make([]byte, 100_000))
			a.(*netconn.Conn).Abort()
		}()
		piece := pattern(10_000)
		_ = b.SetWriteDeadline(soon())
		var err error
		for err == nil {
			_, err = b.Write(piece)
		}
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write: %v", err)
		}
		for range 3 { // and it stays
			if n, again := b.Write(piece); n != 0 || !errors.Is(again, errors.Unwrap(err)) {
				t.Errorf("another write: %d, %v; the first failed with %v", n, again, err)
			}
		}
	})
}

// TestDeadlines checks deadlines that nettest does not: one that is moved, one that is
// removed, and a Conn that closes with one pending.
func TestDeadlines(t *testing.T) {
	l := startLoop(t)
	a, b := dialled("tcp")(t, l, l)
	defer a.Close()
	defer b.Close()
	_ = a.SetReadDeadline(time.Now().Add(time.Hour))
	done := make(chan error, 1)
	go func() { done <- second(a.Read(make([]byte, 1))) }()
	_ = a.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) // moved nearer
	err := <-done
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_ = a.SetReadDeadline(time.Time{}) // removed
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	// The deadline takes precedence over bytes that are there.
	if _, err := b.Write([]byte("xy")); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	_ = a.SetReadDeadline(time.Unix(1, 0))
	if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d, %v", n, err)
	}
	_ = a.SetReadDeadline(soon())
	if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

// TestListener: the end of Accept, connections that no one accepted, and a bounded
// queue.
func TestListener(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		ln := on(t, l, func() (*netconn.Listener, error) { return netconn.Listen(l, "tcp", "127.0.0.1:0") })
		const dials = 200 // more than the queue holds: the rest waits in the system's
		clients := make([]net.Conn, dials)
		for i := range clients {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			clients[i] = c
		}
		for range dials - 10 {
			c, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.LocalAddr().String() != ln.Addr().String() {
				t.Fatalf("accepted on %v, listening on %v", c.LocalAddr(), ln.Addr())
			}
		}
		waiting := make(chan error, 1)
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		go func() {
			_, err := ln.Accept()
			waiting <- err
		}()
		for what, err := range map[string]error{"accept": <-waiting, "close": ln.Close()} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s after Close: %v", what, err)
			}
		}
		_ = clients[dials-1].SetReadDeadline(soon())
		if _, err := clients[dials-1].Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection that nobody accepted: %v", err)
		}
	})
}

// TestDialFails: the whole reason comes back (R43), and a connect that no one waits for
// any more is stopped.
func TestDialFails(t *testing.T) {
	l := startLoop(t)
	const address = "127.0.0.1:1" // the system gives no one a port so low
	_, err := netconn.Dial(context.Background(), l, "tcp", address)
	var op *net.OpError
	var failed *weir.ConnectError
	if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &op) || !errors.As(err, &failed) || len(failed.Attempts) != 1 {
		t.Errorf("refused: %v", err)
	}

	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("not needed any more")
	// A resolver that never answers keeps the connect going.
	asked, stopped := make(chan struct{}), make(chan struct{})
	slow := startLoop(t, weir.WithResolver(silent{asked, stopped}))
	go func() { <-asked; cancel(why) }()
	if _, err = netconn.Dial(ctx, slow, "tcp", "nowhere.example:1"); !errors.Is(err, why) {
		t.Errorf("canceled: %v", err)
	}
	<-stopped
	if _, err = netconn.Dial(ctx, l, "tcp", address); !errors.Is(err, why) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if n := on(t, slow, func() (int, error) { return slow.Connections(), nil }); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestLoopCloses: whoever waits on a loop that is closed gets an error.
func TestLoopCloses(t *testing.T) {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- l.Run() }()
	a, b := dialled("tcp")(t, l, l)
	defer b.Close()
	read := make(chan error, 1)
	go func() { read <- second(a.Read(make([]byte, 1))) }()
	l.Stop()
	if err := errors.Join(<-over, l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, weir.ErrLoopClosed) {
		t.Errorf("the read in progress: %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, weir.ErrLoopClosed) {
		t.Errorf("a write: %v", err)
	}
	if _, err := netconn.Dial(context.Background(), l, "tcp", "127.0.0.1:1"); !errors.Is(err, weir.ErrLoopClosed) {
		t.Errorf("a dial: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// TestNoGoroutines: a connection costs no goroutine on the callback side.
func TestNoGoroutines(t *testing.T) {
	if name := os.Getenv("WEIR_BACKEND"); name == "portable" {
		t.Skip("the portable backend's connections have goroutines of their own")
	}
	l := startLoop(t)
	if l.Backend().Name == "portable" {
		t.Skip("the portable backend's connections have goroutines of their own")
	}
	before := runtime.NumGoroutine()
	for range 50 {
		a, b := dialled("tcp")(t, l, l)
		defer a.Close()
		defer b.Close()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines more for 100 connections", n-before)
	}
}

// silent is a resolver that never answers.
type silent struct{ asked, stopped chan struct{} }

// LookupNetIP implements weir.Resolver.
func (s silent) LookupNetIP(*weir.Loop, string, string, func([]netip.Addr, error)) func() {
	close(s.asked)
	return func() { close(s.stopped) }
}
