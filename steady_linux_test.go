package weir

import (
	"bytes"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/epoll"
	"github.com/weir-io/weir/internal/backend/uring"
	"github.com/weir-io/weir/internal/inner"
	"github.com/weir-io/weir/internal/sys"
	"golang.org/x/sys/unix"
)

// pingPong sends back what it receives.
type pingPong struct {
	NopProtocol
	t     Transport
	count int
	first []byte
}

func (p *pingPong) ConnectionMade(t Transport) {
	p.t = t
	if p.first != nil {
		_, _ = t.Write(p.first)
	}
}

func (p *pingPong) DataReceived(b []byte) (int, error) {
	p.count++
	return p.t.Write(b)
}

// TestSteadyEcho counts what a message costs once traffic is steady: one read,
// one write, no epoll_ctl and no allocation (R6, R20).
func TestSteadyEcho(t *testing.T) {
	for _, name := range []string{"epoll", "epoll-et"} {
		t.Run(name, func(t *testing.T) {
			l, err := NewLoop(WithBackendName(name))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			a, b := &pingPong{}, &pingPong{first: make([]byte, 64)}
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(Transport) Protocol { return a })
			if err != nil {
				t.Fatal(err)
			}
			l.Connect("tcp", ln.Addr().String(), b)
			turns := func(messages int) {
				for want := a.count + b.count + messages; a.count+b.count < want; {
					if err := l.Turn(-1); err != nil {
						t.Fatal(err)
					}
				}
			}
			turns(100)
			be := l.be.(*epoll.Backend)
			before, count := be.Calls(), a.count+b.count
			turns(1000)
			after, messages := be.Calls(), uint64(a.count+b.count-count)
			if after.Read-before.Read != messages || after.Write-before.Write != messages || after.Ctl != before.Ctl {
				t.Errorf("%d messages cost %d reads, %d writes, %d epoll_ctl", messages,
					after.Read-before.Read, after.Write-before.Write, after.Ctl-before.Ctl)
			}
			if n := testing.AllocsPerRun(100, func() { turns(10) }); n != 0 {
				t.Errorf("10 messages cost %v allocations", n)
			}
		})
	}
}

// TestEmptyExtras: the extras shared by streams without any stay empty.
func TestEmptyExtras(t *testing.T) {
	l, err := NewLoop(WithBackendName("epoll"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := 0
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t Transport) Protocol { return DataFunc(t.Write) })
	if err != nil {
		t.Fatal(err)
	}
	p := &pingPong{}
	l.Connect("tcp", ln.Addr().String(), p)
	for p.t == nil || ln.Conns() == 0 {
		if err := l.Turn(-1); err != nil {
			t.Fatal(err)
		}
	}
	ln.Each(func(tr Transport) {
		s := tr.(*stream)
		s.SetProtocol(s.Protocol())
		tr.(Unreader).Unread([]byte("x"))
		_ = tr.SetWriteMarks(2, 1)
		tr.PauseReading()
		tr.ResumeReading()
		_, _ = tr.Write(make([]byte, 100))
		tr.(Resetter).Reset()
	})
	ln.OnDone(func() { done++ })
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	for done == 0 {
		if err := l.Turn(-1); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.ValueOf(&l.noExtras).Elem().IsZero() {
		t.Errorf("%+v", l.noExtras)
	}
}

// stillCarrier is a carrier that moves nothing.
type stillCarrier struct{}

func (stillCarrier) Write(bufs [][]byte) (n int, err error) { return 0, nil }
func (stillCarrier) CloseWrite() error                      { return nil }
func (stillCarrier) CanCloseWrite() bool                    { return true }
func (stillCarrier) PauseReading()                          {}
func (stillCarrier) ResumeReading()                         {}
func (stillCarrier) Close(bool)                             {}

// TestSteadyForward: if a layer delivers pieces together, whatever a protocol forwards
// of them is sent with one call, and without an allocation (R6, R38).
func TestSteadyForward(t *testing.T) {
	const piece, pieces = 16 << 10, 4
	for _, name := range []string{"epoll", "epoll-et"} {
		t.Run(name, func(t *testing.T) {
			l, err := NewLoop(WithBackendName(name))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			got := 0
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(Transport) Protocol {
				return DataFunc(func(p []byte) (int, error) { got += len(p); return len(p), nil })
			})
			if err != nil {
				t.Fatal(err)
			}
			dst := &pingPong{}
			l.Connect("tcp", ln.Addr().String(), dst)
			until := func(cond func() bool) {
				for !cond() {
					if err := l.Turn(-1); err != nil {
						t.Fatal(err)
					}
				}
			}
			until(func() bool { return dst.t != nil })
			to := dst.t.(Forwarder)
			f, err := l.Carry(stillCarrier{})
			if err != nil {
				t.Fatal(err)
			}
			f.Begin(func(Transport) Protocol { return DataFunc(to.Forward) })
			defer f.Closed(nil)
			mem := make([]byte, pieces*piece)
			list := make([][]byte, pieces)
			for i := range list {
				list[i] = mem[i*piece : (i+1)*piece]
			}
			all := func() {
				want := got + len(mem)
				f.DeliverMany(list)
				until(func() bool { return got == want })
			}
			for range 10 {
				all()
			}
			be := l.be.(*epoll.Backend)
			before := be.Calls()
			all()
			if n := be.Calls().Write - before.Write; n != 1 {
				t.Errorf("%d pieces left with %d calls", pieces, n)
			}
			if n := testing.AllocsPerRun(100, all); n != 0 {
				t.Errorf("%d pieces cost %v allocations", pieces, n)
			}
		})
	}
}

// pinger sends each datagram back to its sender.
type pinger struct {
	e     *PacketEndpoint
	count int
}

func (p *pinger) EndpointMade(e *PacketEndpoint) { p.e = e }
func (p *pinger) PacketReceived(b []byte, from PacketAddr) {
	p.count++
	_ = p.e.SendTo(b, from)
}
func (p *pinger) EndpointLost(error) {}

// onLoops runs f with a loop of each available backend.
func onLoops(t *testing.T, f func(t *testing.T, l *Loop)) {
	t.Helper()
	for _, name := range Backends() {
		t.Run(name, func(t *testing.T) {
			l, err := NewLoop(WithBackendName(name))
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			f(t, l)
		})
	}
}

// TestSteadyDatagrams: a datagram costs no allocation (R6).
func TestSteadyDatagrams(t *testing.T) {
	onLoops(t, func(t *testing.T, l *Loop) {
		a, b := &pinger{}, &pinger{}
		ea, err := l.ListenPacket("udp4", "127.0.0.1:0", a)
		if err != nil {
			t.Fatal(err)
		}
		eb, err := l.ListenPacket("udp4", "127.0.0.1:0", b)
		if err != nil {
			t.Fatal(err)
		}
		if err := ea.SendTo(make([]byte, 64), eb.Local()); err != nil {
			t.Fatal(err)
		}
		turns := func(messages int) {
			for want := a.count + b.count + messages; a.count+b.count < want; {
				if err := l.Turn(-1); err != nil {
					t.Fatal(err)
				}
			}
		}
		turns(200)
		if n := testing.AllocsPerRun(20, func() { turns(10) }); n >= 1 {
			t.Errorf("10 datagrams cost %v allocations", n)
		}
	})
}

// TestSource: every backend knows the address from which it would send.
func TestSource(t *testing.T) {
	onLoops(t, func(t *testing.T, l *Loop) {
		lo := netip.MustParseAddr("127.0.0.1")
		got := l.order([]netip.Addr{lo, netip.MustParseAddr("fe80::1%nosuch")})
		if len(got) != 2 || got[0] != lo {
			t.Errorf("order %v", got)
		}
	})
}

// systemCalls is how many a loop's backend has made, where it counts them.
func systemCalls(t *testing.T, l *Loop) uint64 {
	switch be := l.be.(type) {
	case *epoll.Backend:
		c := be.Calls()
		return c.Wait + c.Ctl + c.Read + c.Write
	case *uring.Backend:
		s := be.Stats()
		return s.Enters + s.Calls
	}
	t.Skip("calls are not counted")
	return 0
}

// TestDatagramCalls: an endpoint that has plenty to receive, and answers all of it,
// makes at most 0.2 system calls a datagram and no allocation (R6, R51).
func TestDatagramCalls(t *testing.T) {
	onLoops(t, func(t *testing.T, l *Loop) {
		const burst = 256
		for _, answers := range []bool{false, true} {
			p := &counter{answers: answers}
			e, err := l.ListenPacket("udp4", "127.0.0.1:0", p, WithSocketBuffers(0, 1<<20))
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(e.Local().IP))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			b := make([]byte, 64)
			round := func() {
				for range burst {
					if _, err := c.Write(b); err != nil {
						t.Fatal(err)
					}
				}
				for want := p.n + burst; p.n < want; {
					if err := l.Turn(time.Second); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 3 {
				round()
			}
			before := systemCalls(t, l)
			for range 10 {
				round()
			}
			per := float64(systemCalls(t, l)-before) / (10 * burst)
			t.Logf("answers %t: %.3f system calls a datagram", answers, per)
			if per > 0.2 {
				t.Errorf("answers %t: %.3f system calls a datagram", answers, per)
			}
			if n := testing.AllocsPerRun(10, round); n != 0 {
				t.Errorf("answers %t: %d datagrams cost %v allocations", answers, burst, n)
			}
			e.Abort()
		}
	})
}

// TestDatagramCallsExactly: what waits and what is sent in answer to it takes one call to
// wait, one to receive and one to send, whether it is one datagram or as many as fit into
// the calls (R51).
func TestDatagramCallsExactly(t *testing.T) {
	onLoops(t, func(t *testing.T, l *Loop) {
		p := &counter{answers: true}
		e, err := l.ListenPacket("udp4", "127.0.0.1:0", p, WithSocketBuffers(0, 4<<20))
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(e.Local().IP))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetReadBuffer(4 << 20)
		systemCalls(t, l)
		// Two sizes by turns: nothing that is sent can be joined.
		plain := func(n int) {
			b := make([]byte, 64+n)
			for i := range n {
				b[0] = byte(i)
				if _, err := c.Write(b[:64+i]); err != nil {
					t.Fatal(err)
				}
			}
		}
		segmented := func(n int) {
			var k sys.SendControl
			oob := k.Bytes(k.Segments(1000))
			for ; n > 0; n -= 50 {
				if _, _, err := c.WriteMsgUDP(make([]byte, 50*1000), oob, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		back := make([]byte, 2000)
		round := func(send func(n int), n int) (calls uint64) {
			send(n)
			before := systemCalls(t, l)
			for want, turns := p.n+n, 0; p.n < want; turns++ {
				if err := l.Turn(time.Second); err != nil || turns == n {
					t.Fatalf("%d of %d datagrams in %d turns, %v", n-want+p.n, n, turns, err)
				}
			}
			calls = systemCalls(t, l) - before
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			for i := range n {
				k, err := c.Read(back)
				if err != nil || k < 1000 && (k != 64+i || back[0] != byte(i)) {
					t.Fatalf("answer %d has %d bytes, %v", i, k, err)
				}
			}
			return calls
		}
		round(plain, 1) // the first time a backend may have to get ready
		for _, c := range []struct {
			n      int
			send   func(int)
			calls  uint64
			joined bool
		}{
			{1, plain, 3, false},
			{2, plain, 3, false},
			{sys.InboxBatch - 1, plain, 3, false},
			{sys.InboxBatch, plain, 3, false},
			{50, segmented, 3, true},
			{250, segmented, 3, true},
			{500, segmented, 4, true}, // a call for each 256 KiB
		} {
			if c.joined && !joins() {
				continue
			}
			if got := round(c.send, c.n); got != c.calls {
				t.Errorf("%d datagrams, joined %t: %d system calls, want %d", c.n, c.joined, got, c.calls)
			}
		}
	})
}

// fullBackend refuses each SendTo that must be done now.
type fullBackend struct {
	backend.Backend
	t       *testing.T
	refused *byte // where the bytes of the last one are
	taken   int
}

func (b *fullBackend) Submit(op *backend.Op, c *backend.Completion) bool {
	if op.Kind != backend.SendTo {
		return b.Backend.Submit(op, c)
	}
	at := &(*op.Packets)[0].Data[0]
	if op.Flags&backend.Now != 0 {
		b.refused = at
		*c = backend.Completion{Op: op, Err: backend.ErrAgain}
		return true
	}
	if b.refused != nil {
		b.taken++
		if at == b.refused {
			b.t.Error("the backend was given memory to keep that is used again by the next Wait")
		}
		b.refused = nil
	}
	return b.Backend.Submit(op, c)
}

// TestLentAnswers: a datagram that is sent on as it came, out of a message of several, is not
// copied, unless the system takes no more for now (R51).
func TestLentAnswers(t *testing.T) {
	if !joins() {
		t.Skip("no UDP GRO")
	}
	onLoops(t, func(t *testing.T, l *Loop) {
		systemCalls(t, l)
		const size, burst = 1000, 50
		a, b := &counter{}, &counter{answers: true}
		sum := 0
		a.got = func(p []byte) {
			if len(p) != size || p[0] != byte(a.n-1) || p[size-1] != byte(a.n-1) {
				t.Errorf("answer %d has %d bytes of %d", a.n-1, len(p), p[0])
			}
			sum += len(p)
		}
		ea, err := l.ListenPacket("udp4", "127.0.0.1:0", a, WithSocketBuffers(0, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		eb, err := l.ListenPacket("udp4", "127.0.0.1:0", b, WithSocketBuffers(0, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		round := func() {
			a.n = 0
			l.Soon(func() {
				for i := range burst {
					if err := ea.SendTo(bytes.Repeat([]byte{byte(i)}, size), eb.Local()); err != nil {
						t.Error(err)
					}
				}
			})
			for a.n < burst {
				if err := l.Turn(time.Second); err != nil {
					t.Fatal(err)
				}
			}
		}
		round()
		if n := cap(eb.wr.mem); n > 2*size {
			t.Errorf("%d bytes of answers were copied", n)
		}
		full := &fullBackend{Backend: l.be, t: t}
		l.be = full
		round()
		if full.taken == 0 || eb.wr.lent != 0 || sum != 2*burst*size {
			t.Errorf("%d refusals, %d bytes still lent, %d came back", full.taken, eb.wr.lent, sum)
		}
		l.be = full.Backend
	})
}

// stuckBackend takes no SendTo once it has done so many: it refuses what must be done now, and
// keeps one other until release.
type stuckBackend struct {
	backend.Backend
	after int
	kept  *backend.Op
}

func (b *stuckBackend) Submit(op *backend.Op, c *backend.Completion) bool {
	switch {
	case op.Kind != backend.SendTo:
	case b.after > 0:
		b.after--
	case op.Flags&backend.Now != 0:
		*c = backend.Completion{Op: op, Err: backend.ErrAgain}
		return true
	default:
		op.State, b.kept = 1, op
		return false
	}
	return b.Backend.Submit(op, c)
}

// release has what was kept tried again.
func (b *stuckBackend) release() {
	b.after = math.MaxInt
	if op := b.kept; op != nil {
		b.kept, op.State = nil, 0
		op.Owner.OpDone(&backend.Completion{Op: op, Err: backend.ErrAgain, Last: true})
	}
}

// TestLentCrowd: datagrams that are sent on as they came, to more places than one call
// reaches, all leave with their own bytes, whenever the system takes no more: in the middle of
// the burst, or at its last datagram (R51).
func TestLentCrowd(t *testing.T) {
	if !joins() {
		t.Skip("no UDP GRO")
	}
	for name, c := range map[string]struct{ parts, sends int }{
		"in the middle": {50, 0},
		"at the last":   {packetBatch / 2, 1}, // the one before it is the last that one call holds
	} {
		t.Run(name, func(t *testing.T) {
			onLoops(t, func(t *testing.T, l *Loop) {
				systemCalls(t, l)
				var got []byte
				keeps := func() *counter { return &counter{got: func(p []byte) { got = append(got, p[0], p[len(p)-1]) }} }
				var to [2]PacketAddr
				for i := range to {
					e, err := l.ListenPacket("udp4", "127.0.0.1:0", keeps())
					if err != nil {
						t.Fatal(err)
					}
					to[i] = e.Local()
				}
				on := &counter{}
				e, err := l.ListenPacket("udp4", "127.0.0.1:0", on, WithSocketBuffers(0, 1<<20))
				if err != nil {
					t.Fatal(err)
				}
				on.got = func(p []byte) {
					if err := e.SendTo(p, to[on.n%2]); err != nil {
						t.Errorf("datagram %d: %v", on.n, err)
					}
				}
				conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(e.Local().IP))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				send := func(n, size int, with byte) {
					var k sys.SendControl
					if _, _, err := conn.WriteMsgUDP(bytes.Repeat([]byte{with}, n*size), k.Bytes(k.Segments(size)), nil); err != nil {
						t.Fatal(err)
					}
				}
				until := func(what string, done func() bool) {
					for range 1000 {
						if done() {
							return
						}
						if err := l.Turn(10 * time.Millisecond); err != nil {
							t.Fatal(err)
						}
					}
					t.Fatalf("%s: %d datagrams came, %d came back", what, on.n, len(got)/2)
				}
				until("the start", func() bool { return on.e != nil })
				stuck := &stuckBackend{Backend: l.be, after: c.sends}
				l.be = stuck
				defer func() { l.be = stuck.Backend }()
				send(c.parts, 900, 'a')
				send(c.parts+1, 1000, 'a')
				total := 2*c.parts + 1
				until("the burst", func() bool { return on.n == total })
				if e.wr.lent != 0 {
					t.Errorf("%d bytes are still lent after the burst", e.wr.lent)
				}
				send(c.parts, 900, 'b') // into the same memory
				until("the next burst", func() bool { return on.n == total+c.parts })
				l.Soon(stuck.release)
				until("the end", func() bool { return len(got) == 2*on.n })
				if want := 2 * total; bytes.Count(got, []byte("a")) != want {
					t.Errorf("%d of %d bytes came back as they were sent", bytes.Count(got, []byte("a")), want)
				}
			})
		})
	}
}

// TestTogether: what is sent between Together(true) and Together(false) leaves by one call,
// in order, when the second is made (R51).
func TestTogether(t *testing.T) {
	onLoops(t, func(t *testing.T, l *Loop) {
		systemCalls(t, l)
		calls := func() uint64 {
			if be, ok := l.be.(*epoll.Backend); ok {
				return be.Calls().Write
			}
			return l.be.(*uring.Backend).Stats().Calls
		}
		e, err := l.ListenPacket("udp4", "127.0.0.1:0", &counter{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		to := PacketAddr{IP: c.LocalAddr().(*net.UDPAddr).AddrPort()}
		const n = 20
		var inside, after uint64
		l.Soon(func() {
			before := calls()
			in := inner.Of(l)
			was := in.Together(true)
			for i := range n {
				if err := e.SendTo(make([]byte, i), to); err != nil {
					t.Error(err)
				}
			}
			inside = calls() - before
			if nested := in.Together(was); was || !nested {
				t.Errorf("Together was %t, and then %t", was, nested)
			}
			after = calls() - before
		})
		for range 2 { // EndpointMade comes in one of them
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		if inside != 0 || after != 1 {
			t.Errorf("%d system calls before the end, %d with it, want 0 and 1", inside, after)
		}
		b := make([]byte, 100)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		for i := range n {
			if k, err := c.Read(b); k != i || err != nil {
				t.Fatalf("datagram %d has %d bytes, %v", i, k, err)
			}
		}
	})
}

// counter counts datagrams and may send them back.
type counter struct {
	e       *PacketEndpoint
	n       int
	answers bool
	got     func(b []byte)
}

func (p *counter) EndpointMade(e *PacketEndpoint) { p.e = e }
func (p *counter) PacketReceived(b []byte, from PacketAddr) {
	p.n++
	if p.got != nil {
		p.got(b)
	}
	if p.answers {
		_ = p.e.SendTo(b, from)
	}
}
func (p *counter) EndpointLost(error) {}

// TestJoinedDatagrams: where the kernel joins datagrams, a sender and a receiver
// on one loop make, together, at most 0.1 system calls a datagram, 0.05 for each, and no
// allocation; edges and order stay (R51).
func TestJoinedDatagrams(t *testing.T) {
	onLoops(t, func(t *testing.T, l *Loop) {
		const size, burst = 1200, 500
		a, b := &counter{}, &counter{}
		var bad string
		b.got = func(p []byte) {
			k := (b.n - 1) % burst
			if want := size - k%2*(k%7); len(p) != want || p[0] != byte(k) || p[len(p)-1] != byte(k) {
				bad = fmt.Sprintf("datagram %d has %d bytes of %d, want %d", k, len(p), p[0], want)
			}
		}
		ea, err := l.ListenPacket("udp4", "127.0.0.1:0", a)
		if err != nil {
			t.Fatal(err)
		}
		eb, err := l.ListenPacket("udp4", "127.0.0.1:0", b, WithSocketBuffers(0, 4<<20))
		if err != nil {
			t.Fatal(err)
		}
		systemCalls(t, l)
		mem := make([]byte, size)
		uneven := true
		send := l.NewNotifier(func() {
			for k := range burst {
				n := size
				if uneven {
					n -= k % 2 * (k % 7)
				}
				for i := range mem[:n] {
					mem[i] = byte(k)
				}
				if err := ea.SendTo(mem[:n], eb.Local()); err != nil {
					t.Error(err)
				}
			}
		})
		round := func() {
			if err := send.Notify(); err != nil {
				t.Fatal(err)
			}
			for want := b.n + burst; b.n < want && bad == ""; {
				if err := l.Turn(time.Second); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 3 {
			round()
		}
		if bad != "" {
			t.Fatal(bad)
		}
		uneven, b.got = false, nil
		for range 3 {
			round()
		}
		before := systemCalls(t, l)
		for range 10 {
			round()
		}
		per := float64(systemCalls(t, l)-before) / (10 * burst)
		t.Logf("%.4f system calls a datagram, sent and received", per)
		if joins() && per > 0.1 {
			t.Errorf("%.4f system calls a datagram, sent and received", per)
		}
		if n := testing.AllocsPerRun(10, round); n != 0 {
			t.Errorf("%d datagrams cost %v allocations", burst, n)
		}
	})
}

// joins reports whether the kernel takes many datagrams as one message.
func joins() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil
}

// TestIdleMemory measures the user memory of an idle TCP connection: at most 512 bytes
// (docs/promises.md, Targets). A stack that the runtime takes or returns meanwhile amounts
// to 20 bytes per connection, so the least of three measurements counts.
func TestIdleMemory(t *testing.T) {
	least := idleMemory(t)
	for range 2 {
		least = min(least, idleMemory(t))
	}
	if least > 512 {
		t.Errorf("an idle connection takes %.0f bytes, the limit is 512", least)
	}
}

func idleMemory(t *testing.T) float64 {
	t.Helper()
	const conns = 2000
	l, err := NewLoop(WithBackendName("epoll"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t Transport) Protocol { return DataFunc(t.Write) })
	if err != nil {
		t.Fatal(err)
	}
	peers := make([]int, 0, conns)
	defer func() { sys.CloseAll(peers...) }()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	open := func(n int) {
		for range n {
			peers = append(peers, dialRaw(t, ln.Addr().(*net.TCPAddr).Port))
			for ln.Conns() < len(peers) {
				if err := l.Turn(-1); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	open(100) // creates the tables and pools
	before := heap()
	open(conns - 100)
	each := (float64(heap()) - float64(before)) / (conns - 100)
	t.Logf("%.0f bytes for an idle connection", each)
	return each
}

// dialRaw connects a blocking socket that takes no memory of the Go heap.
func dialRaw(t *testing.T, port int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// asker sends a message, and ends its stream once the answer is there.
type asker struct {
	pingPong
	lost  int
	local string
}

func (a *asker) DataReceived(b []byte) (int, error) {
	a.count++
	return len(b), a.t.WriteEOF()
}

func (a *asker) ConnectionLost(error) {
	a.lost++
	a.local = a.t.LocalAddr().String()
}

// answerer answers, and ends its stream when its peer has.
type answerer struct {
	pingPong
	lost int
}

func (a *answerer) EOFReceived(int) (bool, error) { return true, a.t.WriteEOF() }
func (a *answerer) ConnectionLost(error)          { a.lost++ }

// TestSessionCalls counts what a short session costs at both of its ends together: a
// connect, a message there and back, the end of one side and then of the other. Each end is
// registered once; the side that ends first says so, and the other closes; and the one
// address that is asked for is the connecting side's own (R79).
func TestSessionCalls(t *testing.T) {
	for _, name := range []string{"epoll", "epoll-et"} {
		t.Run(name, func(t *testing.T) {
			l, err := NewLoop(WithBackendName(name))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			server := &answerer{}
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(Transport) Protocol { return server })
			if err != nil {
				t.Fatal(err)
			}
			session := func() {
				c, lost := &asker{pingPong: pingPong{first: make([]byte, 100)}}, server.lost
				l.Connect("tcp", ln.Addr().String(), c)
				for c.lost == 0 || server.lost == lost {
					if err := l.Turn(time.Millisecond); err != nil { // ConnectionLost precedes its wait
						t.Fatal(err)
					}
				}
				if c.count != 1 || c.local == "" {
					t.Fatalf("%d answers to %s", c.count, c.local)
				}
			}
			session()
			be := l.be.(*epoll.Backend)
			before := be.Calls()
			const n = 20
			for range n {
				session()
			}
			after := be.Calls()
			for _, c := range []struct {
				what          string
				before, after uint64
				want          uint64
			}{
				{"connect", before.Connect, after.Connect, n},
				{"epoll_ctl", before.Ctl, after.Ctl, 2 * n},
				{"read", before.Read, after.Read, 4 * n},
				{"write", before.Write, after.Write, 2 * n},
				{"shutdown", before.Shut, after.Shut, n},
				{"close", before.Close, after.Close, 2 * n},
				{"getsockname, getpeername", before.Name, after.Name, n},
				{"getsockopt, setsockopt", before.Option, after.Option, 0},
			} {
				if got := c.after - c.before; got != c.want {
					t.Errorf("%d sessions took %d calls of %s, want %d", n, got, c.what, c.want)
				}
			}
		})
	}
}

// TestSteadyTenant counts what a message costs in steady traffic: outside of tenants, in
// one, and with shares it is one read, one write, no epoll_ctl and no allocation (R6, R20,
// R69).
func TestSteadyTenant(t *testing.T) {
	for _, c := range []struct {
		name       string
		in, shares bool
	}{{"none", false, false}, {"in one", true, false}, {"shares", true, true}, {"beside", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			l, err := NewLoop(WithBackendName("epoll"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			tn := l.NewTenant("one")
			if c.shares {
				if err := tn.SetShare(2); err != nil {
					t.Fatal(err)
				}
			} else if l.dealer != nil {
				t.Error("a tenant without a share has a dealer made")
			}
			in := tn
			if !c.in {
				in = nil
			}
			a, b := &pingPong{}, &pingPong{first: make([]byte, 64)}
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(Transport) Protocol { return a }, WithTenant(in))
			if err != nil {
				t.Fatal(err)
			}
			l.Connect("tcp", ln.Addr().String(), b, WithTenant(in))
			turns := func(messages int) {
				for want := a.count + b.count + messages; a.count+b.count < want; {
					if err := l.Turn(-1); err != nil {
						t.Fatal(err)
					}
				}
			}
			turns(100)
			be := l.be.(*epoll.Backend)
			before, count := be.Calls(), a.count+b.count
			turns(1000)
			after, messages := be.Calls(), uint64(a.count+b.count-count)
			if after.Read-before.Read != messages || after.Write-before.Write != messages || after.Ctl != before.Ctl {
				t.Errorf("%d messages cost %d reads, %d writes, %d epoll_ctl", messages,
					after.Read-before.Read, after.Write-before.Write, after.Ctl-before.Ctl)
			}
			if n := testing.AllocsPerRun(100, func() { turns(10) }); n != 0 {
				t.Errorf("10 messages cost %v allocations", n)
			}
			if got := tn.Stats().BytesIn; c.in != (got > 0) {
				t.Errorf("the tenant counts %d bytes", got)
			}
		})
	}
}

// TestTenantSizes: a connection outside of tenants takes no more memory because there are
// tenants; one in a tenant takes a tie more.
func TestTenantSizes(t *testing.T) {
	for what, s := range map[string][2]uintptr{
		"socket": {unsafe.Sizeof(socket{}), 288},
		"tie":    {unsafe.Sizeof(tie{}), 48}, // the allocator's class
		"Tenant": {unsafe.Sizeof(Tenant{}), 512},
	} {
		if s[0] > s[1] {
			t.Errorf("a %s takes %d bytes, the limit is %d", what, s[0], s[1])
		}
	}
}

// youngRig is a loop with connections to a listener that never accepts, so that all of them
// have to find room in the system's queue.
type youngRig struct {
	t    *testing.T
	l    *Loop
	addr string
	fd   int
}

// newYoungRig makes one for n connections.
func newYoungRig(t *testing.T, n int) *youngRig {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		t.Skip("what a listener's queue may hold is not known: ", err)
	}
	if most, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || most < n {
		t.Skipf("net.core.somaxconn is %d, %d are needed: %v", most, n, err)
	}
	l, err := NewLoop(WithBackendName("epoll"))
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.Close()
		sys.CloseAll(fd)
	})
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, n); err != nil {
		t.Fatal(err)
	}
	at, err := l.be.Adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.be.Name(at, false)
	if err != nil {
		t.Fatal(err)
	}
	return &youngRig{t: t, l: l, addr: a.IP.String(), fd: fd}
}

func (r *youngRig) turn(cond func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain, with %d connections", r.l.Connections())
		}
		if err := r.l.Turn(10 * time.Millisecond); err != nil { // a callback precedes its wait
			r.t.Fatal(err)
		}
	}
}

// connect makes n connections.
func (r *youngRig) connect(n int, opts ...ConnectOption) []*socket {
	r.t.Helper()
	all := make([]*pingPong, n)
	for i := range all {
		all[i] = &pingPong{}
		r.l.Connect("tcp", r.addr, all[i], opts...)
	}
	var made []*socket
	r.turn(func() bool { return r.l.Connections() == n })
	for _, p := range all {
		made = append(made, p.t.(*stream).lower.(*socket))
	}
	return made
}

// probes is the idle time of k's keep-alive probes, in seconds; 0: there are none.
func (r *youngRig) probes(k *socket) int {
	r.t.Helper()
	v, err := r.l.be.GetOption(k.rh, backend.KeepAlive)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// TestYoung: a connection is not asked for keep-alive probes while it is young, and is
// afterwards, unless it has ended or was told otherwise (R79). An idle time that is too short
// for that is asked for at once.
func TestYoung(t *testing.T) {
	const n = 2*youngBatch + 50
	r := newYoungRig(t, n)
	began := time.Now()
	all := r.connect(n)
	for _, k := range all {
		if got := r.probes(k); got != 0 && time.Since(began) < youngTime {
			t.Fatalf("a young connection is probed after %d s", got)
		}
	}
	if err := all[0].SetKeepAlive(time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := all[1].SetKeepAlive(0); err != nil {
		t.Fatal(err)
	}
	all[2].Abort()
	began = time.Now()
	r.turn(func() bool { return r.l.young.list == nil })
	if took := time.Since(began); took > youngTime+5*time.Second {
		t.Errorf("they were asked after %v", took)
	}
	if got := r.probes(all[0]); got != 60 {
		t.Errorf("told a minute, it has %d s", got)
	}
	if got := r.probes(all[1]); got != 0 {
		t.Errorf("told none, it has %d s", got)
	}
	for i, k := range all[3:] {
		if got := r.probes(k); got != 15 {
			t.Fatalf("connection %d is probed after %d s, want 15", i, got)
		}
	}
	if r.l.young.gone != 0 {
		t.Errorf("%d of none are gone", r.l.young.gone)
	}
	short := newYoungRig(t, 1)
	k := short.connect(1, WithKeepAlive(youngLeast-1))[0]
	if got := short.probes(k); got != 2 || len(short.l.young.list) != 0 {
		t.Errorf("the shortest has %d s, %d wait", got, len(short.l.young.list))
	}
	k = newYoungRig(t, 1).connect(1, WithKeepAlive(0))[0]
	if k.flags&fYoung != 0 {
		t.Error("one without probes waits to be asked")
	}
}

// TestYoungEnds: connections that end at once leave the loop's lists, which hold no more than
// twice those that are open, and a few.
func TestYoungEnds(t *testing.T) {
	const rounds, each = 8, 50
	ways := []struct {
		name string
		end  func(*socket)
	}{
		{"closed", func(k *socket) { _ = k.Close() }},
		{"aborted", func(k *socket) { k.Abort() }},
		{"reset", func(k *socket) { k.Reset() }},
	}
	r := newYoungRig(t, len(ways)*rounds*each)
	for _, how := range ways {
		for range rounds {
			for _, k := range r.connect(each) {
				if _, err := k.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				r.l.settle()
				how.end(k)
			}
			r.turn(func() bool { return r.l.Connections() == 0 })
		}
		if n := len(r.l.young.list); n > goneMost+each {
			t.Errorf("%s: %d of no connections wait to be asked", how.name, n)
		}
		if n := len(r.l.unacked.list); n > goneMost+each {
			t.Errorf("%s: %d of no connections are looked at", how.name, n)
		}
	}
}

// leaver gives its descriptor away.
type leaver struct {
	NopProtocol
	fd  int
	err error
}

func (p *leaver) ConnectionMade(t Transport) { p.fd, p.err = t.(Detacher).Detach() }

// TestYoungDetached: a connection that is given away has its probes.
func TestYoungDetached(t *testing.T) {
	r := newYoungRig(t, 1)
	p := &leaver{fd: -1}
	r.l.Connect("tcp", r.addr, p)
	r.turn(func() bool { return p.fd >= 0 || p.err != nil })
	if p.err != nil {
		t.Fatal(p.err)
	}
	defer sys.CloseAll(p.fd)
	if got, err := sys.GetOption(p.fd, backend.KeepAlive); err != nil || got != 15 {
		t.Errorf("it is probed after %d s, %v", got, err)
	}
}
