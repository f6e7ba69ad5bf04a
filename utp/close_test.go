package utp_test

import (
	"bytes"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/utp"
	"github.com/weir-io/weir/weirtest"
)

// ends are a server on a loop that runs by itself, and a client on a loop that the test
// turns.
type ends struct {
	t              *testing.T
	a, b           *weir.Loop
	to             netip.AddrPort
	listener       *utp.Listener
	server, client *ear
}

func newEnds(t *testing.T, opts ...weir.LoopOption) *ends {
	t.Helper()
	e := &ends{t: t, server: &ear{keepOpen: true}, client: &ear{keepOpen: true}}
	var err error
	if e.a, err = weir.NewLoop(); err != nil {
		t.Fatal(err)
	}
	if e.b, err = weir.NewLoop(opts...); err != nil {
		t.Fatal(err)
	}
	e.listener, err = utp.Listen(e.a, "udp4", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return e.server }, utp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e.to = e.listener.Endpoint().Packets().Local().IP
	done := make(chan error, 1)
	go func() { done <- e.a.Run() }()
	t.Cleanup(func() {
		_, _ = e.a.Post(e.a.Stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = e.b.Close()
		_ = e.a.Close()
	})
	return e
}

// at runs f on the server's loop and waits for it.
func (e *ends) at(f func()) {
	e.t.Helper()
	ran := make(chan struct{})
	if _, err := e.a.Post(func() { f(); close(ran) }); err != nil {
		e.t.Fatal(err)
	}
	<-ran
}

// until waits for something at the server, and turns the client's loop if turn.
func (e *ends) until(what string, turn bool, done func() bool) {
	e.t.Helper()
	late := time.After(20 * time.Second)
	for over := false; !over; e.at(func() { over = done() }) {
		select {
		case <-late:
			e.t.Fatal("waited in vain for ", what)
		default:
		}
		if turn {
			if err := e.b.Turn(time.Millisecond); err != nil {
				e.t.Fatal(err)
			}
		}
	}
}

func (e *ends) connect() {
	e.t.Helper()
	utp.Connect(e.b, "udp4", e.to.String(), e.client, utp.Config{})
	e.until("both ends connected", true, func() bool { return e.client.made+e.server.made == 2 })
}

// TestLoopClose: what was written before a loop's Close, more than any window holds,
// still reaches the peer, and the end after it.
func TestLoopClose(t *testing.T) {
	e := newEnds(t, weir.WithFlushTime(time.Minute)) // a machine may be busy
	e.connect()
	want := noise(6 << 20)
	e.b.Soon(func() { _, _ = e.client.t.Write(want); e.b.Stop() })
	if err := e.b.Run(); err != nil {
		t.Fatal(err)
	}
	if err := e.b.Close(); err != nil {
		t.Error(err)
	}
	if e.client.lost != 1 || !errors.Is(e.client.err, weir.ErrLoopClosed) {
		t.Errorf("the client was lost %d times, with %v", e.client.lost, e.client.err)
	}
	e.until("the end", false, func() bool { return e.server.ends == 1 })
	e.at(func() {
		if !bytes.Equal(e.server.got, want) || e.server.lost > 0 {
			t.Errorf("the server got %d bytes of %d, lost with %v", len(e.server.got), len(want), e.server.err)
		}
	})
}

// TestLoopCloseLost: what is lost on its way while a loop is being closed, when timers do
// not fire any more, is sent again.
func TestLoopCloseLost(t *testing.T) {
	e := newEnds(t, weir.WithFlushTime(time.Minute))
	ep, err := utp.NewEndpoint(utp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	m := &mute{l: e.b}
	if _, err := packet.Listen(e.b, "udp4", "127.0.0.1:0", ep, []packet.Layer{func(*weir.Loop) packet.Ends { return m }}); err != nil {
		t.Fatal(err)
	}
	if err := e.b.Turn(0); err != nil { // the endpoint is made
		t.Fatal(err)
	}
	ep.Dial(e.to, e.client)
	e.until("both ends connected", true, func() bool { return e.server.made == 1 })
	weirtest.Until(t, e.b, "the client connected", func() bool { return e.client.made == 1 })
	want := noise(50_000)
	e.b.Soon(func() {
		m.until = e.b.Now().Add(50 * time.Millisecond)
		_, _ = e.client.t.Write(want)
		e.b.Stop()
	})
	if err := e.b.Run(); err != nil {
		t.Fatal(err)
	}
	if err := e.b.Close(); err != nil {
		t.Error(err)
	}
	e.until("the end", false, func() bool { return e.server.ends == 1 })
	e.at(func() {
		if !bytes.Equal(e.server.got, want) {
			t.Errorf("the server got %d bytes of %d", len(e.server.got), len(want))
		}
	})
}

// mute is a layer for datagrams that sends none until some time.
type mute struct {
	packet.Base
	l     *weir.Loop
	until time.Time
}

func (m *mute) SendTo(p []byte, to weir.PacketAddr) (bool, error) {
	if m.l.Now().Before(m.until) {
		return true, nil
	}
	return m.Base.SendTo(p, to)
}

// TestLoopCloseCut: what a peer has not acknowledged in the time that Close takes is
// lost: Close counts it, and the peer is told.
func TestLoopCloseCut(t *testing.T) {
	e := newEnds(t, weir.WithFlushTime(300*time.Millisecond))
	e.server.then = func(t weir.Transport) { t.PauseReading() }
	e.connect()
	const size = 6 << 20
	e.b.Soon(func() { _, _ = e.client.t.Write(noise(size)); e.b.Stop() })
	if err := e.b.Run(); err != nil {
		t.Fatal(err)
	}
	var cut *weir.CutError
	if err := e.b.Close(); !errors.As(err, &cut) {
		t.Fatalf("Close returned %v", err)
	}
	e.until("the reset", false, func() bool { e.server.t.ResumeReading(); return e.server.lost == 1 })
	e.at(func() {
		got := len(e.server.got)
		if !bytes.Equal(e.server.got, noise(size)[:got]) || !errors.Is(e.server.err, syscall.ECONNRESET) {
			t.Errorf("the server was lost with %v after %d bytes", e.server.err, got)
		}
		if missing := size - got; cut.Connections != 1 || cut.Bytes < missing || cut.Bytes > missing+100_000 {
			t.Errorf("%v, and the server misses %d bytes", cut, missing)
		}
	})
}

// TestLoopCloseConnect: a connect under way fails when the loop is closed, and one from
// inside that failure too; neither holds Close up.
func TestLoopCloseConnect(t *testing.T) {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	silent, err := l.ListenPacket("udp4", "127.0.0.1:0", weir.PacketFunc(func(*weir.PacketEndpoint, []byte, weir.PacketAddr) {}).Protocol())
	if err != nil {
		t.Fatal(err)
	}
	to := silent.Local().IP.String()
	late := &ear{}
	first := &failing{then: func() { utp.Connect(l, "udp4", to, late, utp.Config{}) }}
	utp.Connect(l, "udp4", to, first, utp.Config{})
	if err := l.Turn(0); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	err = l.Close()
	if took := time.Since(begin); err != nil || took > 3*time.Second {
		t.Errorf("Close took %v and returned %v", took, err)
	}
	if !errors.Is(first.failed, weir.ErrLoopClosed) || !errors.Is(late.failed, weir.ErrLoopClosed) {
		t.Errorf("the first failed with %v, the other with %v", first.failed, late.failed)
	}
}

type failing struct {
	ear
	then func()
}

func (f *failing) ConnectFailed(err *weir.ConnectError) { f.ear.ConnectFailed(err); f.then() }

// TestShutdown: Shutdown takes no more connections, lets those that are open go on, and
// waits for a connect under way.
func TestShutdown(t *testing.T) {
	s := weirtest.NewSim(t, 1, weirtest.WithFaults(weirtest.Faults{Latency: 50 * time.Millisecond}))
	w := newWorld(t, s, utp.Config{})
	server := &ear{keepOpen: true}
	ln := w.listen(t, func(weir.Transport) weir.Protocol { return server })
	client := &ear{}
	w.b.Dial(w.to, client)
	s.Until("both ends connected", func() bool { return client.made+server.made == 2 })
	done := false
	ln.OnDone(func() { done = true })
	ended := s.Host("a").Loop().Shutdown(time.Hour)
	_ = s.RunFor(time.Second)
	if _, err := w.a.Listen(func(weir.Transport) weir.Protocol { return server }); !errors.Is(err, weir.ErrLoopClosed) {
		t.Errorf("Listen after Shutdown: %v", err)
	}
	late := &ear{}
	w.b.Dial(w.to, late)
	s.Until("the late one refused", func() bool { return late.failed != nil })
	if !errors.Is(late.failed, syscall.ECONNREFUSED) {
		t.Error(late.failed)
	}
	client.t.Loop().Soon(func() { _, _ = client.t.Write(noise(300_000)); client.t.Close() })
	s.Until("everything", func() bool { return len(server.got) == 300_000 })
	if client.lost+server.lost > 1 || done {
		t.Error("the connection ended by itself")
	}
	// A connect under way, to a host that is cut off, holds the end up until it fails.
	s.Partition(s.Host("a"), s.Host("b"))
	from, err := utp.Open(s.Host("a").Loop(), "udp4", "0.0.0.0:0", utp.Config{Random: chance(3)})
	if err != nil {
		t.Fatal(err)
	}
	out := &ear{}
	from.Dial(netip.MustParseAddrPort(s.Host("b").Addr(9)), out)
	_ = s.RunFor(time.Second)
	s.HealAll()
	server.t.Loop().Soon(func() { server.t.Close() })
	s.Until("both lost", func() bool { return server.lost+client.lost == 2 })
	if out.failed != nil {
		t.Fatal("the connect failed before:", out.failed)
	}
	select {
	case <-ended:
		t.Error("Shutdown did not wait for the connect")
	default:
	}
	s.Until("the connect failed", func() bool { return out.failed != nil })
	s.Until("the end", func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
	if server.err != nil || client.err != nil || !done {
		t.Errorf("lost with %v and %v, the listener done: %v", server.err, client.err, done)
	}
}
