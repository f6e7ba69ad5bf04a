//go:build windows

package iocp

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// A bench is a backend with what it was asked.
type bench struct {
	*Backend
	t    *testing.T
	done [16]backend.Completion
}

func newBench(t *testing.T, c Config) *bench {
	t.Helper()
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return &bench{Backend: b, t: t}
}

// both runs f with packets for what succeeds at once, and without.
func both(t *testing.T, f func(t *testing.T, b *bench)) {
	for _, c := range []Config{{}, {NoSkip: true}} {
		name := "skip"
		if c.NoSkip {
			name = "noskip"
		}
		t.Run(name, func(t *testing.T) { f(t, newBench(t, c)) })
	}
}

const patience = 20 * time.Second

// until waits until cond holds. each is called with every result.
func (b *bench) until(what string, each func(c *backend.Completion), cond func() bool) {
	b.t.Helper()
	for start := time.Now(); !cond(); {
		if time.Since(start) > patience {
			b.t.Fatalf("no %s", what)
		}
		n, err := b.Wait(100*time.Millisecond, b.done[:])
		if err != nil {
			b.t.Fatal(err)
		}
		for i := range b.done[:n] {
			if each != nil {
				each(&b.done[i])
			}
		}
	}
}

// do submits op and returns its result, with what it lends copied.
func (b *bench) do(op *backend.Op) (res backend.Completion) {
	b.t.Helper()
	keep := func(c *backend.Completion) {
		if c.Op == op {
			res = *c
			res.Buf = bytes.Clone(c.Buf)
		}
	}
	var c backend.Completion
	if b.Submit(op, &c) {
		keep(&c)
		return res
	}
	b.until("result", keep, func() bool { return res.Op != nil })
	return res
}

func (b *bench) listen() (backend.Handle, backend.Addr) {
	b.t.Helper()
	h, err := b.Open(&backend.Spec{
		Family: backend.Inet, Bind: true, Backlog: 64,
		Local: backend.Addr{Family: backend.Inet, IP: netip.MustParseAddrPort("127.0.0.1:0")},
		Options: []backend.OptionValue{
			{Option: backend.NoDelay, Value: 1},
			{Option: backend.KeepAlive, Value: 77},
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	a, err := b.Name(h, false)
	if err != nil {
		b.t.Fatal(err)
	}
	return h, a
}

func (b *bench) pair() (client, server backend.Handle) {
	b.t.Helper()
	l, a := b.listen()
	client, err := b.Open(&backend.Spec{Family: backend.Inet})
	if err != nil {
		b.t.Fatal(err)
	}
	if res := b.do(&backend.Op{Kind: backend.Connect, Handle: client, Addr: &a}); res.Err != nil {
		b.t.Fatal(res.Err)
	}
	res := b.do(&backend.Op{Kind: backend.Accept, Handle: l})
	if res.Err != nil {
		b.t.Fatal(res.Err)
	}
	b.shut(l, backend.CloseFlat)
	return client, backend.Handle(res.N)
}

func (b *bench) shut(h backend.Handle, how backend.How) {
	b.t.Helper()
	if err := b.Shut(h, how); err != nil {
		b.t.Fatal(err)
	}
}

// fill writes to h until a write waits, and returns that one and how much was sent before.
func (b *bench) fill(h backend.Handle, block []byte) (op *backend.Op, sent int) {
	b.t.Helper()
	for range 10_000 {
		op := &backend.Op{Kind: backend.Write, Handle: h, Vec: [][]byte{block}}
		var c backend.Completion
		if !b.Submit(op, &c) {
			return op, sent
		}
		if c.Err != nil {
			b.t.Fatal(c.Err)
		}
		sent += c.N
	}
	b.t.Fatal("no write ever waited")
	return nil, 0
}

// settled waits until nothing is in flight any more, and checks that every slot is free.
func (b *bench) settled() {
	b.t.Helper()
	b.until("end of what is in flight", nil, func() bool { return b.inFlight == 0 })
	for _, page := range b.slots.pages {
		for i := range page {
			if page[i].used {
				b.t.Errorf("a slot of kind %d is in use and nothing is in flight", page[i].kind)
			}
		}
	}
}

// TestShortSends: a write that waits takes at most sendMost bytes in sendPieces pieces, and
// what the results count is what arrives, in order.
func TestShortSends(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		c, s := b.pair()
		var want, got []byte
		next := byte(0)
		block := func(n int) []byte {
			p := make([]byte, n)
			for i := range p {
				p[i] = next
				next = next*5 + 1
			}
			return p
		}
		pieces := make([][]byte, 40)
		read := &backend.Op{Kind: backend.Read, Handle: s, Flags: backend.Multi}
		var res backend.Completion
		waited := 0
		for len(want) < 8<<20 {
			for i := range pieces {
				pieces[i] = block(9000 - i*200)
			}
			op := &backend.Op{Kind: backend.Write, Handle: c, Vec: pieces}
			before := len(want)
			took := func(c *backend.Completion) {
				switch {
				case c.Op == read && c.Err == nil:
					got = append(got, c.Buf...)
				case c.Op == op:
					if c.Err != nil || c.N < 1 {
						t.Fatalf("write: %d, %v", c.N, c.Err)
					}
					n := c.N
					for _, p := range pieces {
						k := min(n, len(p))
						want = append(want, p[:k]...)
						n -= k
					}
				}
			}
			if b.Submit(op, &res) {
				took(&res)
			} else {
				waited++
				if !read.Armed() {
					b.Submit(read, &res)
				}
				b.until("write", took, func() bool { return len(want) > before })
				if n := len(want) - before; n > sendMost {
					t.Fatalf("a write that waited sent %d bytes", n)
				}
			}
			next = 0
			if len(want) > 0 {
				next = want[len(want)-1]*5 + 1
			}
		}
		if waited == 0 {
			t.Fatal("no write had to wait")
		}
		if !read.Armed() {
			b.Submit(read, &res)
		}
		b.until("bytes", func(c *backend.Completion) {
			if c.Op == read {
				got = append(got, c.Buf...)
			}
		}, func() bool { return len(got) >= len(want) })
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes arrived, %d were reported as sent, or they differ", len(got), len(want))
		}
	})
}

// TestCancelAgainstComplete cancels reads and writes whose packets may be at the port
// already: no byte is lost, none comes twice, and a canceled write says what it sent.
func TestCancelAgainstComplete(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		c, s := b.pair()
		var res backend.Completion
		// Reads.
		for i := range 50 {
			read := &backend.Op{Kind: backend.Read, Handle: s}
			b.Submit(read, &res)
			if i%2 == 0 {
				if n, err := b.Wait(0, b.done[:]); n != 0 || err != nil {
					t.Fatal(n, err)
				}
			}
			msg := []byte{byte(i), 1, 2}
			if res := b.do(&backend.Op{Kind: backend.Write, Handle: c, Vec: [][]byte{msg}}); res.N != 3 {
				t.Fatal(res)
			}
			if !b.Cancel(read) || read.Armed() {
				t.Fatal("a canceled read is not idle")
			}
			var got []byte
			for len(got) < 3 {
				res := b.do(&backend.Op{Kind: backend.Read, Handle: s})
				if res.Err != nil || res.N == 0 {
					t.Fatal(res.N, res.Err)
				}
				got = append(got, res.Buf...)
			}
			if !bytes.Equal(got, msg) {
				t.Fatalf("round %d: %x", i, got)
			}
		}
		into := make([]byte, 64<<10)
		if err := b.SetOption(c, backend.SendBuffer, 32<<10); err != nil {
			t.Fatal(err)
		}
		// Writes: one that waits, canceled before, while and after the peer makes room.
		partly := 0
		for i := range 30 {
			op, sent := b.fill(c, make([]byte, 256<<10))
			read := 0
			drain := func(max int) {
				for read < max {
					res := b.do(&backend.Op{Kind: backend.Read, Handle: s, Flags: backend.Now, Buf: into})
					if errors.Is(res.Err, backend.ErrAgain) {
						return
					}
					if res.Err != nil {
						t.Fatal(res.Err)
					}
					read += res.N
				}
			}
			if i%3 > 0 {
				drain(1 << 20)
			}
			over := 0
			each := func(c *backend.Completion) {
				if c.Op != op {
					t.Fatalf("a result of another Op: %+v", *c)
				}
				over++
				if c.Err != nil && !errors.Is(c.Err, backend.ErrCanceled) {
					t.Fatal(c.Err)
				}
				sent += c.N
				if 0 < c.N && c.N < sendMost {
					partly++
				}
			}
			if i%3 == 2 {
				n, err := b.Wait(10*time.Millisecond, b.done[:])
				if err != nil {
					t.Fatal(err)
				}
				for j := range b.done[:n] {
					each(&b.done[j])
				}
			}
			if over == 0 {
				if b.Cancel(op) {
					t.Fatal("a write that the system has was idle at once")
				}
				if b.Cancel(op) {
					t.Fatal("it could be canceled twice")
				}
				b.until("end of the canceled write", each, func() bool { return over > 0 })
			}
			if op.Armed() {
				t.Fatal("a write that is over is armed")
			}
			b.until("bytes", func(c *backend.Completion) { t.Fatalf("%+v", *c) }, func() bool {
				drain(sent)
				return read == sent
			})
		}
		t.Logf("%d writes were partly sent", partly)
		b.end(c, s)
	})
}

// TestCanceledAccept cancels an Accept that has its connection already, with the packet
// still at the port: the next Accept has that connection.
func TestCanceledAccept(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		other := newBench(t, Config{})
		l, a := b.listen()
		var res backend.Completion
		for range 10 {
			accept := &backend.Op{Kind: backend.Accept, Handle: l}
			b.Submit(accept, &res)
			if n, err := b.Wait(0, b.done[:]); n != 0 || err != nil {
				t.Fatal(n, err)
			}
			c, err := other.Open(&backend.Spec{Family: backend.Inet})
			if err != nil {
				t.Fatal(err)
			}
			if res := other.do(&backend.Op{Kind: backend.Connect, Handle: c, Addr: &a}); res.Err != nil {
				t.Fatal(res.Err)
			}
			name, err := other.Name(c, false)
			if err != nil {
				t.Fatal(err)
			}
			b.Host(true) // Await keeps what it takes for the next Wait
			for start := time.Now(); !b.waker.used(); {
				if time.Since(start) > patience {
					t.Fatal("no packet of the accept")
				}
				b.Await(patience, nil)
			}
			b.Host(false)
			if !b.Cancel(accept) || accept.Armed() {
				t.Fatal("a canceled accept is not idle")
			}
			got := b.do(&backend.Op{Kind: backend.Accept, Handle: l})
			if peer, err := b.Name(backend.Handle(got.N), true); got.Err != nil || err != nil || peer != name {
				t.Fatalf("accepted %+v, %v, %v; want %+v", peer, got.Err, err, name)
			}
			b.shut(backend.Handle(got.N), backend.CloseReset)
			other.shut(c, backend.CloseReset)
		}
		b.end(l)
	})
}

// end closes handles and checks that nothing is left.
func (b *bench) end(hs ...backend.Handle) {
	b.t.Helper()
	for _, h := range hs {
		b.shut(h, backend.CloseReset)
	}
	b.settled()
}

// TestLateCompletions closes handles with calls of every kind in flight: their numbers are
// used again, and no packet of the old ones reaches the new ones.
func TestLateCompletions(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		var res backend.Completion
		for range 20 {
			l, a := b.listen()
			c, s := b.pair()
			d, err := b.Open(&backend.Spec{
				Family: backend.Inet, Datagram: true, Bind: true,
				Local: backend.Addr{Family: backend.Inet, IP: netip.MustParseAddrPort("127.0.0.1:0")},
			})
			if err != nil {
				t.Fatal(err)
			}
			dialing, err := b.Open(&backend.Spec{Family: backend.Inet})
			if err != nil {
				t.Fatal(err)
			}
			ops := []*backend.Op{
				{Kind: backend.Accept, Handle: l, Flags: backend.Multi},
				{Kind: backend.Read, Handle: s, Flags: backend.Multi},
				{Kind: backend.Hangup, Handle: s},
				{Kind: backend.Ready, Handle: c, Events: backend.Readable},
				{Kind: backend.RecvFrom, Handle: d, Flags: backend.Multi},
			}
			for _, op := range ops {
				b.Submit(op, &res)
			}
			if n, err := b.Wait(0, b.done[:]); n != 0 || err != nil {
				t.Fatal(n, err)
			}
			if b.inFlight < len(ops) {
				t.Fatalf("%d calls are in flight, of %d", b.inFlight, len(ops))
			}
			connect := &backend.Op{Kind: backend.Connect, Handle: dialing, Addr: &a}
			b.Submit(connect, &res)
			b.Cancel(connect)
			late := b.stats.Late
			for _, h := range []backend.Handle{l, c, s, d, dialing} {
				b.shut(h, backend.CloseReset)
			}
			for _, op := range ops {
				if op.Armed() {
					t.Fatalf("an Op of kind %d is armed on a handle that is closed", op.Kind)
				}
			}
			// The same numbers again, and quiet.
			l2, _ := b.listen()
			c2, s2 := b.pair()
			again := []*backend.Op{
				{Kind: backend.Accept, Handle: l2, Flags: backend.Multi},
				{Kind: backend.Read, Handle: s2, Flags: backend.Multi},
				{Kind: backend.Hangup, Handle: c2},
			}
			for _, op := range again {
				b.Submit(op, &res)
			}
			for range 20 {
				n, err := b.Wait(time.Millisecond, b.done[:])
				if n != 0 || err != nil {
					t.Fatalf("a result where none was due: %+v, %v", b.done[0], err)
				}
			}
			if b.stats.Late < late+5 {
				t.Fatalf("%d packets came late", b.stats.Late-late)
			}
			for _, h := range []backend.Handle{l2, c2, s2} {
				b.shut(h, backend.CloseReset)
			}
		}
		b.settled()
	})
}

// TestBuffersInFlight: what the system was given is not used for anything else before its
// packet has come, even if the handle is closed and as much again is begun.
func TestBuffersInFlight(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		var res backend.Completion
		for range 10 {
			c, s := b.pair()
			read := &backend.Op{Kind: backend.Read, Handle: s}
			b.Submit(read, &res)
			if _, err := b.Wait(0, b.done[:]); err != nil {
				t.Fatal(err)
			}
			sl := b.handle(s).rdSlot
			if sl == nil || !sl.used {
				t.Fatal("no call is in flight for a read")
			}
			b.Cancel(read)
			b.shut(s, backend.CloseReset)
			if !sl.used || sl.h != nil {
				t.Fatal("the slot of a call in flight is free, or still its handle's")
			}
			// No Wait comes in between, so that no packet is taken.
			var others []*slot
			for range 3 * slotPage {
				other := b.slots.take(nil, backend.Read, true)
				if other == sl {
					t.Fatal("a slot in flight is among the free ones")
				}
				others = append(others, other)
			}
			for _, other := range others {
				b.slots.drop(other)
			}
			b.shut(c, backend.CloseReset)
		}
		b.settled()
	})
}

// TestPortClosed closes the backend with calls of every kind in flight. It is over soon,
// everything is idle, and a write's bytes are given back only after the system has them no
// more.
func TestPortClosed(t *testing.T) {
	both(t, func(t *testing.T, b *bench) {
		var res backend.Completion
		l, _ := b.listen()
		c, s := b.pair()
		ops := []*backend.Op{
			{Kind: backend.Accept, Handle: l, Flags: backend.Multi},
			{Kind: backend.Read, Handle: c, Flags: backend.Multi},
			{Kind: backend.Hangup, Handle: s},
			{Kind: backend.Ready, Handle: c, Events: backend.Readable, Flags: backend.Multi},
		}
		for _, op := range ops {
			b.Submit(op, &res)
		}
		if _, err := b.Wait(0, b.done[:]); err != nil {
			t.Fatal(err)
		}
		write, _ := b.fill(c, make([]byte, 64<<10))
		ops = append(ops, write)
		start := time.Now()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > closePatience {
			t.Errorf("Close took %v", d)
		}
		if b.inFlight != 0 {
			t.Errorf("%d calls are in flight after Close", b.inFlight)
		}
		for _, op := range ops {
			if op.Armed() {
				t.Errorf("an Op of kind %d is armed after Close", op.Kind)
			}
		}
		if _, err := b.Wait(0, b.done[:]); err == nil {
			t.Error("Wait after Close: no error")
		}
		b.Wake()
		b.Await(time.Millisecond, nil)
	})
}

// TestAcceptedOptions: a listener's options hold on what it accepts, which the suite cannot
// check where there are no user timeouts.
func TestAcceptedOptions(t *testing.T) {
	b := newBench(t, Config{})
	_, s := b.pair()
	for o, want := range map[backend.Option]int{backend.NoDelay: 1, backend.KeepAlive: 77, backend.PendingError: 0} {
		if v, err := b.GetOption(s, o); v != want || err != nil {
			t.Errorf("option %d is %d, %v; want %d", o, v, err, want)
		}
	}
}

// TestMove hands a fresh connection over to another port: it works there, and one that has
// been waited for does not move.
func TestMove(t *testing.T) {
	b, other := newBench(t, Config{}), newBench(t, Config{})
	c, s := b.pair()
	conn, err := b.Detach(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Name(s, false); err == nil {
		t.Error("a handle that was given up has a name")
	}
	moved, err := other.AdoptConn(conn)
	if err != nil {
		t.Fatal(err)
	}
	if res := b.do(&backend.Op{Kind: backend.Write, Handle: c, Vec: [][]byte{[]byte("moved")}}); res.Err != nil {
		t.Fatal(res.Err)
	}
	if res := other.do(&backend.Op{Kind: backend.Read, Handle: moved}); string(res.Buf) != "moved" {
		t.Fatalf("read %q, %v", res.Buf, res.Err)
	}
	if _, err := other.AdoptConn(conn); err == nil {
		t.Error("a connection could be adopted twice")
	}
	var res backend.Completion
	read := &backend.Op{Kind: backend.Read, Handle: c}
	b.Submit(read, &res)
	if _, err := b.Wait(0, b.done[:]); err != nil {
		t.Fatal(err)
	}
	b.Cancel(read)
	if _, err := b.Detach(c); !errors.Is(err, backend.ErrUnsupported) {
		t.Errorf("a connection that the port has: %v", err)
	}
}

// TestIdleHoldsNoBuffer: a connection that waits for bytes has a call in flight and no
// memory for them.
func TestIdleHoldsNoBuffer(t *testing.T) {
	b := newBench(t, Config{})
	_, s := b.pair()
	var res backend.Completion
	b.Submit(&backend.Op{Kind: backend.Read, Handle: s, Flags: backend.Multi}, &res)
	if _, err := b.Wait(0, b.done[:]); err != nil {
		t.Fatal(err)
	}
	sl := b.handle(s).rdSlot
	if sl == nil || sl.aux != nil || sl.none.Len != 0 || sl.none.Buf != nil || b.lent != 0 {
		t.Errorf("an idle connection holds %+v, and %d bytes are lent", sl, b.lent)
	}
}
