package zmq_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/hosts/internal/hosttest"
	"github.com/weir-io/weir/hosts/zmq"
)

const messages = 100_000

type rig struct {
	t    *testing.T
	loop *weir.Loop
	ctx  *zmq.Context
}

func newRig(t *testing.T) *rig {
	t.Helper()
	stop := func() {}
	loop, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { t.Error(err); stop() }))
	if err != nil {
		t.Fatal(err)
	}
	stop = loop.Stop
	ctx, err := zmq.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	late := loop.After(30*time.Second, func() { t.Error("the messages stopped"); loop.Stop() })
	t.Cleanup(func() {
		late.Stop()
		_ = loop.Close()
		ctx.Close()
	})
	return &rig{t, loop, ctx}
}

func (r *rig) open(kind int, h zmq.Handler) *zmq.Socket {
	r.t.Helper()
	s, err := zmq.Open(r.loop, r.ctx, kind, h)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := s.SetInt(zmq.Linger, 0); err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) run() {
	r.t.Helper()
	if err := r.loop.Run(); err != nil {
		r.t.Fatal(err)
	}
}

// sparing fails if a socket looked more often than there were messages, or in vain.
func (r *rig) sparing(s *zmq.Socket) {
	r.t.Helper()
	c := s.Counts()
	r.t.Logf("%+v", c)
	if n := c.Received + c.Sent; c.Wakes > n+100 || c.Empty > n/4+100 {
		r.t.Errorf("%d messages, but %d wakes, %d of them in vain", n, c.Wakes, c.Empty)
	}
	// Nothing wakes it while nothing comes.
	r.loop.After(time.Second, r.loop.Stop)
	r.run()
	if now := s.Counts(); now.Wakes > c.Wakes+2 {
		r.t.Errorf("%d wakes in a second without a message", now.Wakes-c.Wakes)
	}
}

// peer starts the program at the other end.
func peer(t *testing.T, how, endpoint string) *hosttest.Program {
	t.Helper()
	hosttest.Need(t, "gcc")
	out := filepath.Join(t.TempDir(), "peer")
	hosttest.Do(t, "gcc", append([]string{"-O2", "-o", out, "testdata/peer.c"}, hosttest.Flags(t, "libzmq")...)...)
	return hosttest.Start(t, exec.Command(out, how, endpoint, fmt.Sprint(messages)))
}

// TestPull: a hundred thousand messages of a program that knows nothing of weir arrive in
// order, with no polling (R14).
func TestPull(t *testing.T) {
	r := newRig(t)
	n := 0
	s := r.open(zmq.PULL, zmq.Handler{Message: func(parts [][]byte) {
		if want := fmt.Sprintf("message %d", n); len(parts) != 1 || string(parts[0]) != want {
			t.Errorf("%q, want %q", parts, want)
			r.loop.Stop()
		}
		if n++; n == messages {
			r.loop.Stop()
		}
	}})
	if err := s.Bind("tcp://127.0.0.1:*"); err != nil {
		t.Fatal(err)
	}
	p := peer(t, "push", s.Endpoint())
	r.run()
	if n != messages {
		t.Fatalf("%d messages, want %d", n, messages)
	}
	p.Line("done")
	r.sparing(s)
}

// TestEcho: the same both ways, in parts; sending must not lose the sign of what came.
func TestEcho(t *testing.T) {
	r := newRig(t)
	n := 0
	var s *zmq.Socket
	s = r.open(zmq.ROUTER, zmq.Handler{Message: func(parts [][]byte) {
		if len(parts) != 3 || string(parts[2]) != "second" {
			t.Errorf("%q", parts)
		}
		if err := s.Send(parts...); err != nil {
			t.Error(err)
			r.loop.Stop()
		}
		if n++; n == messages {
			r.loop.Stop()
		}
	}})
	if err := s.Bind("tcp://127.0.0.1:*"); err != nil {
		t.Fatal(err)
	}
	p := peer(t, "echo", s.Endpoint())
	r.run()
	if n != messages {
		t.Fatalf("%d messages, want %d", n, messages)
	}
	p.Line("done")
	r.sparing(s)
}

// TestBackpressure: a sender that is told ErrAgain continues when it hears Writable, and no
// message is lost; both sockets are in one loop.
func TestBackpressure(t *testing.T) {
	r := newRig(t)
	sent, got, again := 0, 0, 0
	pull := r.open(zmq.PULL, zmq.Handler{Message: func(parts [][]byte) {
		if want := fmt.Sprint(got); string(parts[0]) != want {
			t.Errorf("%q, want %q", parts, want)
			r.loop.Stop()
		}
		if got++; got == messages {
			r.loop.Stop()
		}
	}})
	var push *zmq.Socket
	send := func() {
		for sent < messages {
			err := push.Send(fmt.Append(nil, sent))
			if errors.Is(err, zmq.ErrAgain) {
				again++
				return
			}
			if err != nil {
				t.Error(err)
				r.loop.Stop()
				return
			}
			sent++
		}
	}
	push = r.open(zmq.PUSH, zmq.Handler{Writable: send})
	for _, s := range []*zmq.Socket{pull, push} {
		for _, o := range []int{zmq.SendMark, zmq.ReceiveMark} {
			if err := s.SetInt(o, 50); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := pull.Bind("inproc://here"); err != nil {
		t.Fatal(err)
	}
	if err := push.Connect("inproc://here"); err != nil {
		t.Fatal(err)
	}
	r.loop.Soon(send)
	r.run()
	if got != messages || again == 0 {
		t.Fatalf("%d messages, want %d; the sender had to wait %d times", got, messages, again)
	}
	t.Logf("the sender had to wait %d times", again)
	r.sparing(pull)
}

// TestInterrupted: signals, which Go's runtime sends to itself, interrupt calls of libzmq.
func TestInterrupted(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := unix.Gettid()
	over, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-over:
				return
			default:
				_ = unix.Tgkill(unix.Getpid(), thread, unix.SIGURG)
			}
		}
	}()
	defer func() { close(over); <-gone }()
	r := newRig(t)
	got := 0
	pull := r.open(zmq.PULL, zmq.Handler{Message: func([][]byte) {
		if got++; got == 2000 {
			r.loop.Stop()
		}
	}})
	push := r.open(zmq.PUSH, zmq.Handler{})
	if err := pull.Bind("tcp://127.0.0.1:*"); err != nil {
		t.Fatal(err)
	}
	if err := push.Connect(pull.Endpoint()); err != nil {
		t.Fatal(err)
	}
	sent := 0
	var send func()
	send = func() {
		if sent == 2000 {
			return
		}
		switch err := push.Send([]byte("x")); {
		case err == nil:
			sent++
		case !errors.Is(err, zmq.ErrAgain):
			t.Error(err)
			r.loop.Stop()
			return
		}
		r.loop.After(50*time.Microsecond, send)
	}
	send()
	r.run()
	if got != 2000 {
		t.Errorf("%d of 2000 messages came", got)
	}
}

// TestSendTakesSign: a send, which makes the descriptor quiet, leaves no message waiting.
func TestSendTakesSign(t *testing.T) {
	r := newRig(t)
	got := 0
	hear := zmq.Handler{Message: func([][]byte) {
		if got++; got == 2 {
			r.loop.Stop()
		}
	}}
	a, b := r.open(zmq.PAIR, hear), r.open(zmq.PAIR, hear)
	if err := errors.Join(a.Bind("inproc://here"), b.Connect("inproc://here")); err != nil {
		t.Fatal(err)
	}
	r.loop.After(20*time.Millisecond, func() {
		if err := errors.Join(b.Send([]byte("to a")), a.Send([]byte("to b"))); err != nil {
			t.Error(err)
		}
	})
	r.run()
	if got != 2 {
		t.Errorf("%d of 2 messages came", got)
	}
}

// TestFair: a socket that always has messages leaves other callbacks their turns.
func TestFair(t *testing.T) {
	r := newRig(t)
	got, turns := 0, 0
	var push *zmq.Socket
	pull := r.open(zmq.PULL, zmq.Handler{Message: func([][]byte) { got++ }})
	push = r.open(zmq.PUSH, zmq.Handler{})
	if err := pull.Bind("inproc://here"); err != nil {
		t.Fatal(err)
	}
	if err := push.Connect("inproc://here"); err != nil {
		t.Fatal(err)
	}
	const n = 1000
	for range n {
		if err := push.Send([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	var turn func()
	turn = func() {
		if turns++; got < n {
			r.loop.Soon(turn)
		} else {
			r.loop.Stop()
		}
	}
	turn()
	r.run()
	if turns < n/64 {
		t.Errorf("%d messages within %d turns of something else", n, turns)
	}
}

// TestPanic: a panic in a callback is reported, and leaves nothing that waits.
func TestPanic(t *testing.T) {
	panics := 0
	loop, err := weir.NewLoop(weir.WithErrorHandler(func(err error) {
		var p *weir.PanicError
		if !errors.As(err, &p) {
			t.Error(err)
		}
		panics++
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := zmq.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t, loop, ctx}
	defer func() {
		_ = loop.Close()
		ctx.Close()
	}()
	late := loop.After(5*time.Second, func() { t.Error("the messages stopped"); loop.Stop() })
	defer late.Stop()
	const n = 10
	got := 0
	pull := r.open(zmq.PULL, zmq.Handler{Message: func([][]byte) {
		if got++; got == n {
			loop.Stop()
		}
		panic("in Message")
	}})
	// No message fits until the other end is there; then Writable is called.
	var push *zmq.Socket
	push = r.open(zmq.PUSH, zmq.Handler{Writable: func() {
		for range n {
			if err := push.Send([]byte("x")); err != nil {
				t.Error(err)
			}
		}
		panic("in Writable")
	}})
	if err := push.Send([]byte("x")); !errors.Is(err, zmq.ErrAgain) {
		t.Fatalf("Send without a peer: %v", err)
	}
	if err := errors.Join(pull.Bind("inproc://here"), push.Connect("inproc://here")); err != nil {
		t.Fatal(err)
	}
	r.run()
	if got != n || panics != n+1 {
		t.Errorf("%d of %d messages came, and %d of %d panics were reported", got, n, panics, n+1)
	}
}

// TestContextInterrupted: signals do not end the wait of Context.Close for a socket.
func TestContextInterrupted(t *testing.T) {
	r := newRig(t)
	ctx, err := zmq.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	s, err := zmq.Open(r.loop, ctx, zmq.PULL, zmq.Handler{})
	if err != nil {
		t.Fatal(err)
	}
	thread, closed := make(chan int), make(chan struct{})
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		thread <- unix.Gettid()
		ctx.Close()
		close(closed)
	}()
	id := <-thread
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 200 {
		_ = unix.Tgkill(unix.Getpid(), id, unix.SIGURG)
		select {
		case <-closed:
			t.Fatal("Context.Close returned while a socket of the context was open")
		case <-tick.C:
		}
	}
	s.Close()
	<-closed
}

// TestCloseInside: a socket may be closed in its own callback.
func TestCloseInside(t *testing.T) {
	r := newRig(t)
	var pull *zmq.Socket
	got := 0
	pull = r.open(zmq.PULL, zmq.Handler{Message: func([][]byte) {
		got++
		pull.Close()
		pull.Close()
		r.loop.After(20*time.Millisecond, r.loop.Stop)
	}})
	push := r.open(zmq.PUSH, zmq.Handler{})
	if err := errors.Join(pull.Bind("inproc://here"), push.Connect("inproc://here")); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := push.Send([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	r.run()
	if got != 1 {
		t.Errorf("%d messages after Close", got-1)
	}
	if err := pull.Send([]byte("x")); !errors.Is(err, weir.ErrClosed) {
		t.Errorf("Send after Close: %v", err)
	}
	if err := pull.Bind("inproc://elsewhere"); !errors.Is(err, weir.ErrClosed) {
		t.Errorf("Bind after Close: %v", err)
	}
}
