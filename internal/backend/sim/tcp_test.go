package sim_test

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/sim"
)

func TestConnectTakesARoundTrip(t *testing.T) {
	w := newWorld(t, sim.Config{Faults: sim.Faults{Latency: 10 * time.Millisecond}})
	l, addr := w.listen(w.b, 7000, 1)
	_, c := w.dial(w.a, addr)
	acc := w.do(w.b, backend.Op{Kind: backend.Accept, Handle: l})
	if c.at != 20*time.Millisecond || acc.at != 30*time.Millisecond {
		t.Errorf("connected at %v, accepted at %v, want 20ms and 30ms", c.at, acc.at)
	}
	own, err := w.a.Name(c.Handle, false)
	if err != nil || acc.peer != own || own.IP.Addr() != w.Lookup("a")[0] {
		t.Errorf("accepted from %v, connected from %v, %v", acc.peer, own, err)
	}
	w.clean()
}

func TestConnectFailures(t *testing.T) {
	w := newWorld(t, sim.Config{})
	to := backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(w.Lookup("b")[0], 9)}
	h, c := w.dial(w.a, to)
	w.want(w.finish(c), "", refused)
	// The socket may try again.
	l, addr := w.listen(w.b, 9, 1)
	if c := w.do(w.a, backend.Op{Kind: backend.Connect, Handle: h, Addr: &addr}); c.err != nil {
		t.Errorf("the second connect: %v", c.err)
	}
	nobody := backend.Addr{Family: backend.Inet, IP: netip.MustParseAddrPort("192.0.2.1:9")}
	_, c = w.dial(w.a, nobody)
	w.want(w.finish(c), "", syscall.EHOSTUNREACH)

	w.Partition(w.Host("a"), w.Host("b"))
	before := w.Now()
	_, c = w.dial(w.a, addr)
	w.want(w.finish(c), "", timeout)
	if d := w.Now() - before; d < 127*time.Second || d > 128*time.Second {
		t.Errorf("gave up after %v, want 127s", d)
	}
	w.Heal(w.Host("a"), w.Host("b"))
	w.shut(w.b, l, backend.CloseFlat)
	w.clean()
}

func TestConnectThroughAPartition(t *testing.T) {
	w := newWorld(t, sim.Config{})
	_, addr := w.listen(w.b, 9, 1)
	w.Partition(w.Host("a"), w.Host("b"))
	_, c := w.dial(w.a, addr)
	if err := w.RunFor(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	w.Heal(w.Host("a"), w.Host("b"))
	if w.finish(c); c.err != nil || c.at < 10*time.Second || c.at > 20*time.Second {
		t.Errorf("connected at %v, %v", c.at, c.err)
	}
	w.clean()
}

// A backlog of n holds n+1 connections, as on Linux; more wait without an error.
func TestBacklog(t *testing.T) {
	w := newWorld(t, sim.Config{})
	l, addr := w.listen(w.b, 9, 2)
	var calls []*call
	for range 5 {
		_, c := w.dial(w.a, addr)
		calls = append(calls, c)
	}
	if err := w.RunFor(500 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	connected := 0
	for _, c := range calls {
		if c.over {
			connected++
		}
	}
	if connected != 3 {
		t.Errorf("%d connected with a backlog of 2", connected)
	}
	acc := w.b.begin(w.World, backend.Op{Kind: backend.Accept, Handle: l, Flags: backend.Multi})
	for _, c := range calls {
		if w.finish(c); c.err != nil {
			t.Error(c.err)
		}
	}
	if w.RunFor(time.Second); acc.times != 5 {
		t.Errorf("%d accepted of 5", acc.times)
	}
	w.b.Cancel(&acc.Op)
	w.clean()
}

func TestListenerClosedWithQueue(t *testing.T) {
	w := newWorld(t, sim.Config{})
	l, addr := w.listen(w.b, 9, 2)
	h, c := w.dial(w.a, addr)
	w.finish(c)
	if err := w.RunFor(time.Second); err != nil {
		t.Fatal(err)
	}
	w.shut(w.b, l, backend.CloseFlat)
	w.want(w.do(w.a, read(h)), "", reset)
	// And one that is on its way when the listener closes.
	l, addr = w.listen(w.b, 10, 2)
	h, c = w.dial(w.a, addr)
	w.finish(c)
	w.shut(w.b, l, backend.CloseFlat)
	w.want(w.do(w.a, read(h)), "", reset)
	w.clean()
}

func TestPorts(t *testing.T) {
	w := newWorld(t, sim.Config{})
	_, addr := w.listen(w.b, 0, 1)
	if addr.IP.Port() < 32768 {
		t.Errorf("picked port %d", addr.IP.Port())
	}
	tcp := backend.Spec{Family: backend.Inet, Bind: true, Local: addr, Backlog: 1}
	if _, err := w.b.Open(&tcp); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second listener: %v", err)
	}
	any := tcp
	any.Local.IP = netip.AddrPortFrom(netip.IPv4Unspecified(), addr.IP.Port())
	if _, err := w.b.Open(&any); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second listener on every interface: %v", err)
	}
	dual := any
	dual.IPv6, dual.Dual = true, true
	dual.Local.IP = netip.AddrPortFrom(netip.IPv6Unspecified(), addr.IP.Port())
	if _, err := w.b.Open(&dual); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second listener on every interface of both families: %v", err)
	}
	dual.Dual = false
	if _, err := w.b.Open(&dual); err != nil {
		t.Errorf("a listener of the other family: %v", err)
	}
	other := tcp
	other.Local.IP = netip.AddrPortFrom(w.Lookup("a")[0], 80)
	if _, err := w.b.Open(&other); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("somebody else's address: %v", err)
	}
	if _, err := w.a.Open(&other); err != nil {
		t.Errorf("our own: %v", err)
	}
	w.clean()
}

// What had arrived before a reset is read first, and then the reset, each time.
func TestDataBeforeReset(t *testing.T) {
	w := newWorld(t, sim.Config{})
	a, b := w.pair()
	w.write(w.a, a, "last words")
	w.shut(w.a, a, backend.CloseReset)
	w.rest()
	w.want(w.do(w.b, read(b)), "last words", nil)
	for range 2 {
		w.want(w.do(w.b, read(b)), "", reset)
		w.want(w.do(w.b, backend.Op{Kind: backend.Hangup, Handle: b}), "", reset)
		w.want(w.do(w.b, backend.Op{Kind: backend.Write, Handle: b, Vec: [][]byte{{1}}}), "", reset)
	}
	w.clean()
}

func TestCloseWithUnreadResets(t *testing.T) {
	w := newWorld(t, sim.Config{})
	a, b := w.pair()
	w.write(w.a, a, "never read")
	w.rest()
	w.shut(w.b, b, backend.CloseFlat)
	w.want(w.do(w.a, read(a)), "", reset)
	w.clean()
}

// Bytes that reach a closed socket are answered by a reset; after the peer's end
// that is EPIPE, as Linux has it.
func TestDataToClosed(t *testing.T) {
	w := newWorld(t, sim.Config{})
	a, b := w.pair()
	w.shut(w.b, b, backend.CloseFlat)
	c := w.do(w.a, read(a))
	if c.want(t, 0, nil); c.at == 0 {
		t.Error("the end took no time")
	}
	w.write(w.a, a, "x")
	w.rest()
	w.want(w.do(w.a, backend.Op{Kind: backend.Hangup, Handle: a}), "", syscall.EPIPE)
	w.want(w.do(w.a, backend.Op{Kind: backend.Write, Handle: a, Vec: [][]byte{{1}}}), "", syscall.EPIPE)
	w.do(w.a, read(a)).want(t, 0, nil)
	w.clean()
}

func (c *call) want(t *testing.T, n int, err error) {
	t.Helper()
	if c.n != n || !errors.Is(c.err, err) {
		t.Errorf("%d, %v, want %d, %v", c.n, c.err, n, err)
	}
}

func TestHalfClose(t *testing.T) {
	w := newWorld(t, sim.Config{})
	a, b := w.pair()
	w.write(w.a, a, "request")
	w.shut(w.a, a, backend.ShutWrite)
	w.want(w.do(w.b, read(b)), "request", nil)
	w.do(w.b, read(b)).want(t, 0, nil)
	w.write(w.b, b, "reply")
	w.want(w.do(w.a, read(a)), "reply", nil)
	hup := w.a.begin(w.World, backend.Op{Kind: backend.Hangup, Handle: a})
	if w.RunFor(time.Second); hup.over {
		t.Error("a hang-up with one direction open")
	}
	w.shut(w.b, b, backend.CloseFlat)
	w.want(w.finish(hup), "", nil)
	w.shut(w.a, a, backend.CloseFlat)
	w.rest()
	if u := w.Usage(); u.Sockets != 0 {
		t.Errorf("left over: %+v", u)
	}
	w.clean()
}

// A closed socket goes on sending, and is gone when all of it has arrived.
func TestCloseFlushes(t *testing.T) {
	w := newWorld(t, sim.Config{Faults: sim.Faults{ReceiveBuffer: 10}})
	a, b := w.pair()
	text := strings.Repeat("0123456789", 50)
	w.write(w.a, a, text)
	w.shut(w.a, a, backend.CloseFlat)
	w.rest()
	if u := w.Host("a").Usage(); u.Handles != 0 || u.Sockets != 1 || u.Buffered == 0 {
		t.Errorf("the sender holds %+v", u)
	}
	c := w.b.begin(w.World, backend.Op{Kind: backend.Read, Handle: b, Flags: backend.Multi})
	w.want(w.finish(c), text, nil)
	w.rest()
	if u := w.Host("a").Usage(); u.Sockets != 0 {
		t.Errorf("the sender still holds %+v", u)
	}
	w.clean()
}

// A reset that is lost on its way comes again to whoever still sends.
func TestResetLost(t *testing.T) {
	w := newWorld(t, sim.Config{Faults: sim.Faults{Latency: 10 * time.Millisecond}})
	a, b := w.pair()
	w.shut(w.b, b, backend.CloseFlat)
	w.write(w.a, a, "who is not there any more")
	w.shut(w.a, a, backend.CloseFlat)
	w.RunFor(15 * time.Millisecond) // the answer is under way
	w.Partition(w.Host("a"), w.Host("b"))
	w.RunFor(time.Second)
	w.Heal(w.Host("a"), w.Host("b"))
	w.rest()
	if u := w.Usage(); u.Sockets != 0 {
		t.Errorf("left over: %+v", u)
	}
	w.clean()
}

func TestWindow(t *testing.T) {
	w := newWorld(t, sim.Config{Faults: sim.Faults{SendBuffer: 1000, ReceiveBuffer: 500}})
	a, b := w.pair()
	sent := 0
	for {
		c := w.a.begin(w.World, backend.Op{Kind: backend.Write, Handle: a, Vec: [][]byte{make([]byte, 400)}})
		w.RunFor(time.Second)
		if !c.over {
			break
		}
		sent += c.n
	}
	if sent != 1500 {
		t.Errorf("%d bytes fitted into 1000 and 500", sent)
	}
	unsent, _ := w.a.GetOption(a, backend.UnsentBytes)
	unread, _ := w.b.GetOption(b, backend.UnreadBytes)
	if unsent != 1000 || unread != 500 {
		t.Errorf("unsent %d, unread %d", unsent, unread)
	}
	w.clean()
}

func TestPartitionDelays(t *testing.T) {
	w := newWorld(t, sim.Config{})
	a, b := w.pair()
	w.write(w.a, a, "before ")
	w.Partition(w.Host("a"), w.Host("b"))
	w.write(w.a, a, "behind")
	if err := w.RunFor(time.Minute); err != nil {
		t.Fatal(err)
	}
	if n, _ := w.b.GetOption(b, backend.UnreadBytes); n != 0 {
		t.Errorf("%d bytes passed a cut link", n)
	}
	w.Heal(w.Host("a"), w.Host("b"))
	w.rest()
	w.want(w.do(w.b, read(b)), "before behind", nil)
	w.clean()
}

func TestPatience(t *testing.T) {
	for _, c := range []struct {
		name   string
		option backend.OptionValue
		write  bool
		least  time.Duration
		most   time.Duration
	}{
		{"retries", backend.OptionValue{}, true, 10 * time.Minute, 20 * time.Minute},
		{"user timeout", backend.OptionValue{Option: backend.UserTimeout, Value: 5000}, true, 5 * time.Second, 15 * time.Second},
		{"keep-alive", backend.OptionValue{Option: backend.KeepAlive, Value: 10}, false, 100 * time.Second, 100 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, sim.Config{})
			a, _ := w.pair()
			if c.option.Option != 0 {
				if err := w.a.SetOption(a, c.option.Option, c.option.Value); err != nil {
					t.Fatal(err)
				}
			}
			w.rest()
			start := w.Now()
			w.Partition(w.Host("a"), w.Host("b"))
			if c.write {
				w.write(w.a, a, "x")
			}
			got := w.do(w.a, read(a))
			w.want(got, "", timeout)
			if d := got.at - start; d < c.least || d > c.most {
				t.Errorf("gave up after %v, want %v to %v", d, c.least, c.most)
			}
		})
	}
}

func TestCrash(t *testing.T) {
	w := newWorld(t, sim.Config{})
	a, _ := w.pair()
	w.Host("b").Crash()
	if _, err := w.b.Wait(0, w.b.done[:]); !errors.Is(err, sim.ErrCrashed) {
		t.Errorf("Wait on a crashed host: %v", err)
	}
	if _, err := w.Host("b").Backend(); !errors.Is(err, sim.ErrCrashed) {
		t.Errorf("a backend on a crashed host: %v", err)
	}
	w.write(w.a, a, "hello?")
	c := w.a.begin(w.World, read(a))
	if w.RunFor(10 * time.Second); c.over {
		t.Errorf("something came of a crashed host: %d, %v", c.n, c.err)
	}
	w.Host("b").Restart()
	w.want(w.finish(c), "", reset)
	if u := w.Host("b").Usage(); u != (sim.Usage{}) {
		t.Errorf("the crashed host holds %+v", u)
	}
	newLoop(t, w.Host("b"))
}

func TestHandles(t *testing.T) {
	w := newWorld(t, sim.Config{Handles: 3})
	x, y, z := w.open(w.a), w.open(w.a), w.open(w.a)
	if x != 3 || y != 4 || z != 5 {
		t.Errorf("handles %d, %d, %d", x, y, z)
	}
	if _, err := w.a.Open(&backend.Spec{Family: backend.Inet}); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("a fourth of three: %v", err)
	}
	w.shut(w.a, y, backend.CloseFlat)
	w.shut(w.a, x, backend.CloseFlat)
	if h := w.open(w.a); h != x {
		t.Errorf("got %d, want the lowest, %d", h, x)
	}
	// Another backend of the host has other handles of the same numbers' space.
	second := newLoop(t, w.Host("a"))
	h := w.open(second)
	if h != y {
		t.Errorf("got %d, want %d", h, y)
	}
	if err := w.a.Shut(h, backend.CloseFlat); !errors.Is(err, syscall.EBADF) {
		t.Errorf("closing another backend's handle: %v", err)
	}
}

func TestEmfileOnAccept(t *testing.T) {
	w := newWorld(t, sim.Config{})
	l, addr := w.listen(w.b, 9, 5)
	w.Host("b").SetHandles(1)
	h, c := w.dial(w.a, addr)
	w.finish(c)
	acc := w.do(w.b, backend.Op{Kind: backend.Accept, Handle: l, Flags: backend.Multi})
	acc.want(t, int(backend.None), syscall.EMFILE)
	w.Host("b").SetHandles(2)
	acc = w.do(w.b, backend.Op{Kind: backend.Accept, Handle: l})
	if acc.err != nil {
		t.Fatalf("the connection was lost: %v", acc.err)
	}
	w.write(w.a, h, "x")
	w.want(w.do(w.b, read(backend.Handle(acc.n))), "x", nil)
	w.clean()
}
