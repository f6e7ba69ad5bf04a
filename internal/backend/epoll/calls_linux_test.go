package epoll

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// onStyles runs f on a backend of each style.
func onStyles(t *testing.T, f func(*testing.T, *Backend)) {
	for _, style := range styles {
		t.Run(style.name, func(t *testing.T) {
			b := open(t, style.edge)
			t.Cleanup(func() { b.Close() })
			f(t, b)
		})
	}
}

// submit arms op, which must not finish at once.
func submit(t *testing.T, b *Backend, op *backend.Op) {
	t.Helper()
	var c backend.Completion
	if b.Submit(op, &c) {
		t.Fatalf("Submit finished: %d, %v", c.N, c.Err)
	}
}

// wait does one Wait and returns what it reports.
func wait(t *testing.T, b *Backend, timeout time.Duration) []backend.Completion {
	t.Helper()
	done := make([]backend.Completion, 256)
	n, err := b.Wait(timeout, done)
	if err != nil {
		t.Fatal(err)
	}
	return done[:n]
}

func tcpPair(t *testing.T, b *Backend) (c, s backend.Handle) {
	t.Helper()
	l, addr := listenTCP(t, b)
	c, s = dialTCP(t, b, l, addr)
	if err := b.Shut(l, backend.CloseFlat); err != nil {
		t.Fatal(err)
	}
	return c, s
}

func send(t *testing.T, b *Backend, h backend.Handle, text string) {
	t.Helper()
	var c backend.Completion
	if !b.Submit(&backend.Op{Kind: backend.Write, Handle: h, Vec: [][]byte{[]byte(text)}}, &c) || c.N != len(text) {
		t.Fatalf("write: %+v", c)
	}
}

// TestSteadyEcho: one read and one write per exchange, and interest registered
// once (R20).
func TestSteadyEcho(t *testing.T) {
	for _, style := range styles {
		for _, conns := range []int{1, 50} {
			e := newEcho(t, style.edge, true, conns)
			e.run(t, 10)
			before := e.b.Calls()
			const trips = 200
			e.run(t, trips)
			after := e.b.Calls()
			messages := uint64(2 * trips * conns)
			if got := after.Read - before.Read; got != messages {
				t.Errorf("%s, %d connections: %d reads for %d messages", style.name, conns, got, messages)
			}
			if got := after.Write - before.Write; got != messages {
				t.Errorf("%s, %d connections: %d writes for %d messages", style.name, conns, got, messages)
			}
			if got := after.Ctl - before.Ctl; got != 0 {
				t.Errorf("%s, %d connections: %d epoll_ctl in steady traffic", style.name, conns, got)
			}
			if got := after.Wait - before.Wait; got > messages/uint64(conns)+messages/10 {
				t.Errorf("%s, %d connections: %d waits for %d messages", style.name, conns, got, messages)
			}
		}
	}
}

// TestPause: a pause that is over before anything arrives costs no epoll_ctl,
// and bytes that arrive in a pause do not make the loop spin (R30, G9).
func TestPause(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		c, s := tcpPair(t, b)
		op := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
		submit(t, b, op)
		wait(t, b, 0) // ends the interest that the connect registered
		before := b.Calls()
		for range 10 {
			b.Cancel(op)
			wait(t, b, 0)
			submit(t, b, op)
			wait(t, b, 0)
		}
		if got := b.Calls().Ctl - before.Ctl; got != 0 {
			t.Errorf("10 pauses cost %d epoll_ctl", got)
		}
		b.Cancel(op)
		send(t, b, c, "abc")
		before = b.Calls()
		if got := wait(t, b, 30*time.Millisecond); len(got) != 0 {
			t.Fatalf("%d results in a pause", len(got))
		}
		calls := b.Calls()
		if got := calls.Wait - before.Wait; got > 3 {
			t.Errorf("30 ms of a pause with bytes waiting took %d waits", got)
		}
		if calls.Read != before.Read {
			t.Error("bytes were read in a pause")
		}
		submit(t, b, op)
		if got := wait(t, b, time.Second); len(got) != 1 || string(got[0].Buf) != "abc" {
			t.Errorf("after the pause: %+v", got)
		}
		if got := b.Calls().Ctl - before.Ctl; got > 2 {
			t.Errorf("the pause cost %d epoll_ctl", got)
		}
	})
}

// TestNothingArmed: hang-ups and errors that no one waits for do not make the loop
// spin, and are not forgotten either (G9).
func TestNothingArmed(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		c, s := tcpPair(t, b)
		op := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
		submit(t, b, op)
		b.Cancel(op)
		if err := b.Shut(c, backend.CloseReset); err != nil {
			t.Fatal(err)
		}
		before := b.Calls()
		if got := wait(t, b, 30*time.Millisecond); len(got) != 0 {
			t.Fatalf("%d results for nobody", len(got))
		}
		if got := b.Calls().Wait - before.Wait; got > 3 {
			t.Errorf("30 ms after a reset took %d waits", got)
		}
		submit(t, b, op)
		if got := wait(t, b, time.Second); len(got) != 1 || !errors.Is(got[0].Err, unix.ECONNRESET) {
			t.Errorf("the reset came as %+v", got)
		}
	})
}

// TestWriteInterest: room to write is watched only while a write waits for it.
func TestWriteInterest(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		c, s := tcpPair(t, b)
		rd := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
		wr := &backend.Op{Kind: backend.Write, Handle: c, Vec: [][]byte{make([]byte, 1<<20)}}
		var done backend.Completion
		for b.Submit(wr, &done) {
			if done.Err != nil {
				t.Fatal(done.Err)
			}
		}
		submit(t, b, rd)
		for wr.Armed() {
			wait(t, b, time.Second)
		}
		for len(wait(t, b, 20*time.Millisecond)) > 0 { // all that was sent arrives
		}
		before := b.Calls()
		wait(t, b, 30*time.Millisecond)
		if got := b.Calls().Wait - before.Wait; got > 2 {
			t.Errorf("30 ms with room to write and nothing to say took %d waits", got)
		}
	})
}

// TestAcceptsBounded: a burst of connections is taken in batches, and existing
// connections are served along with the first (behaviour 75).
func TestAcceptsBounded(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		l, addr := listenTCP(t, b)
		c, s := dialTCP(t, b, l, addr)
		const burst = 3*acceptsPerWait + 5
		other := open(t, false)
		defer other.Close()
		for range burst {
			h, err := other.Open(&backend.Spec{Family: backend.Inet})
			if err != nil {
				t.Fatal(err)
			}
			var done backend.Completion
			op := &backend.Op{Kind: backend.Connect, Handle: h, Addr: &addr}
			for !other.Submit(op, &done) && op.Armed() {
				wait(t, other, time.Second)
			}
		}
		send(t, b, c, "x")
		accept := &backend.Op{Kind: backend.Accept, Flags: backend.Multi, Handle: l}
		read := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
		submit(t, b, accept)
		submit(t, b, read)
		accepted, readAt, waits := 0, 0, 0
		for accepted < burst {
			waits++
			now := 0
			for _, r := range wait(t, b, time.Second) {
				switch {
				case r.Err != nil:
					t.Fatal(r.Err)
				case r.Op == accept:
					now++
				case r.Op == read:
					readAt = waits
				}
			}
			if now == 0 || now > acceptsPerWait {
				t.Fatalf("%d connections in one Wait", now)
			}
			accepted += now
		}
		if readAt != 1 {
			t.Errorf("the open connection was served in Wait %d", readAt)
		}
	})
}

// TestWakeWrites: a wake writes at most once per sleep, and not at all while the
// loop is awake.
func TestWakeWrites(t *testing.T) {
	b := open(t, false)
	defer b.Close()
	for range 1000 {
		b.Wake()
	}
	wait(t, b, -1)
	if got := b.Calls().Wake; got != 0 {
		t.Errorf("1000 wakes of a loop that was awake wrote %d times", got)
	}
	const sleeps = 50
	for range sleeps {
		ready, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			close(ready)
			for range 100 {
				b.Wake()
			}
		}()
		<-ready
		wait(t, b, -1)
		<-done
		wait(t, b, 0) // takes what was left
	}
	if got := b.Calls().Wake; got > sleeps {
		t.Errorf("%d sleeps were woken by %d writes", sleeps, got)
	}
}

// TestFineTimeouts: if the kernel has epoll_pwait2, a timeout of a fraction of a
// millisecond is exact.
func TestFineTimeouts(t *testing.T) {
	b := open(t, false)
	defer b.Close()
	if !b.pwait2 {
		t.Skip("the kernel lacks epoll_pwait2")
	}
	const d = 150 * time.Microsecond
	best := time.Hour
	for range 50 {
		start := b.Now()
		wait(t, b, d)
		best = min(best, b.Now()-start)
	}
	if best < d || best >= time.Millisecond {
		t.Errorf("the best of 50 waits of %v took %v", d, best)
	}
	// And without it, no timer is early.
	b.pwait2 = false
	for range 5 {
		start, before := b.Now(), b.Calls().Wait
		wait(t, b, d)
		if waits := b.Calls().Wait - before; waits > 2 {
			t.Errorf("a wait of %v was cut into %d", d, waits)
		}
		if took := b.Now() - start; took < d {
			t.Errorf("a wait of %v took %v", d, took)
		}
	}
}

// TestHosted: whatever is due shows on the descriptor that a host watches, even between
// two Waits (R24).
func TestHosted(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		readable := func() bool {
			p := []unix.PollFd{{Fd: int32(b.Caps().PollFD), Events: unix.POLLIN}}
			n, err := unix.Poll(p, 0)
			if err != nil {
				t.Fatal(err)
			}
			return n > 0
		}
		b.Wake() // unseen so far
		b.Host(true)
		expect := func(want bool, when string) {
			t.Helper()
			if got := readable(); got != want {
				t.Errorf("readable is %t %s", got, when)
			}
		}
		expect(true, "with a wake from before")
		wait(t, b, 0)
		expect(false, "when nothing is due")
		b.Wake()
		expect(true, "after a wake")
		wait(t, b, 0)
		expect(false, "when the wake was taken")

		c, s := tcpPair(t, b)
		c2, s2 := tcpPair(t, b)
		for _, h := range []backend.Handle{s, s2} {
			submit(t, b, &backend.Op{Kind: backend.Read, Handle: h})
		}
		send(t, b, c, "x")
		send(t, b, c2, "y")
		expect(true, "with bytes to read")
		one := make([]backend.Completion, 1)
		for i := range 2 {
			expect(true, "with a result left")
			if n, err := b.Wait(0, one); n != 1 || err != nil {
				t.Fatalf("Wait %d: %d, %v", i, n, err)
			}
		}
		wait(t, b, 0)
		expect(false, "when all was read")
		// A result that is known without the kernel.
		bad := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: 99999}
		submit(t, b, bad)
		expect(true, "with a failure to report")
		if got := wait(t, b, 0); len(got) != 1 || got[0].Op != bad {
			t.Errorf("got %+v", got)
		}
		b.Host(false)
		b.Wake()
		if got := wait(t, b, -1); len(got) != 0 {
			t.Errorf("got %+v", got)
		}
	})
}

// TestSecondOp: a second Op of one kind is an error, and the first stays (R19).
func TestSecondOp(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		c, s := tcpPair(t, b)
		first := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
		submit(t, b, first)
		var done backend.Completion
		if !b.Submit(&backend.Op{Kind: backend.Read, Handle: s}, &done) || !errors.Is(done.Err, unix.EBUSY) {
			t.Errorf("a second read: %v", done.Err)
		}
		second := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
		submit(t, b, second)
		if got := wait(t, b, time.Second); len(got) != 1 || got[0].Op != second || !errors.Is(got[0].Err, unix.EBUSY) || second.Armed() {
			t.Errorf("a second Multi read: %+v", got)
		}
		submit(t, b, second)
		if !b.Cancel(second) || len(wait(t, b, 0)) != 0 {
			t.Error("a refused read could not be canceled")
		}
		send(t, b, c, "x")
		if got := wait(t, b, time.Second); len(got) != 1 || got[0].Op != first {
			t.Errorf("the first read: %+v", got)
		}
	})
}

// TestStaleRegistration: a registration whose number was closed while its file lives on
// is detected by its first event, and the other registrations go on (bug 8, behaviour
// 8).
func TestStaleRegistration(t *testing.T) {
	for _, reused := range []bool{false, true} {
		t.Run(fmt.Sprintf("reused=%t", reused), func(t *testing.T) {
			onStyles(t, func(t *testing.T, b *Backend) { staleRegistration(t, b, reused) })
		})
	}
}

func staleRegistration(t *testing.T, b *Backend, reused bool) {
	c, s := tcpPair(t, b)
	read := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
	submit(t, b, read)
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	h := adopt(t, b, p[0])
	submit(t, b, &backend.Op{Kind: backend.Read, Handle: h})
	kept, err := unix.Dup(p[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	unix.Close(p[0])
	if err := b.Shut(h, backend.CloseFlat); !errors.Is(err, unix.EBADF) {
		t.Errorf("Shut of what was closed already: %v", err)
	}
	next := &backend.Op{Kind: backend.Ready, Flags: backend.Multi, Events: backend.Readable}
	if reused { // the number has a new owner, which the event must not reach
		var quiet [2]int
		if err := unix.Pipe2(quiet[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(quiet[1])
		if quiet[0] != p[0] {
			t.Fatalf("the number %d was not free", p[0])
		}
		next.Handle = adopt(t, b, quiet[0])
		submit(t, b, next)
	}
	if _, err := unix.Write(p[1], []byte("stale")); err != nil {
		t.Fatal(err)
	}
	before := b.Calls()
	if got := wait(t, b, 30*time.Millisecond); len(got) != 0 {
		t.Errorf("the stale event reached %+v", got)
	}
	if got := b.Calls().Wait - before.Wait; got > zombieRow+4 {
		t.Errorf("30 ms with a stale registration took %d waits", got)
	}
	send(t, b, c, "x")
	if got := wait(t, b, time.Second); len(got) != 1 || got[0].Op != read {
		t.Errorf("afterwards: %+v", got)
	}
	b.Wake()
	wait(t, b, -1) // the wakes still work
}

// TestSessionCalls: a connection takes one epoll_ctl from its connect to its close, in both
// styles, and so does one that was accepted (R79).
func TestSessionCalls(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		l, addr := listenTCP(t, b)
		first, _ := dialTCP(t, b, l, addr) // registers the listener
		_ = b.Shut(first, backend.CloseFlat)
		before := b.Calls()
		const sessions = 20
		for range sessions {
			c, s := dialTCP(t, b, l, addr)
			ask := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
			answer := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: c}
			submit(t, b, ask)
			submit(t, b, answer)
			send(t, b, c, "x")
			send(t, b, s, "y")
			if err := b.Shut(c, backend.ShutWrite); err != nil {
				t.Fatal(err)
			}
			for got := 0; ask.Armed() || got < 3; {
				for _, r := range wait(t, b, 5*time.Second) {
					if r.Err != nil {
						t.Fatal(r.Err)
					}
					got++
				}
			}
			wait(t, b, 0) // the end is reported once
			if err := b.Shut(s, backend.CloseFlat); err != nil {
				t.Fatal(err)
			}
			if answer.Armed() {
				b.Cancel(answer)
			}
			if err := b.Shut(c, backend.CloseFlat); err != nil {
				t.Fatal(err)
			}
		}
		after := b.Calls()
		if got := after.Ctl - before.Ctl; got != 2*sessions {
			t.Errorf("%d sessions took %d epoll_ctl, want %d", sessions, got, 2*sessions)
		}
	})
}

// TestDuplicateOfOurs: a socket of our own that lives on under another number, as in a child
// before its exec, is closed without a call; events for it reach no one, do not make the loop
// spin, and those of the number's next owner arrive (bug 8).
func TestDuplicateOfOurs(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		l, addr := listenTCP(t, b)
		c, s := dialTCP(t, b, l, addr)
		read := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
		submit(t, b, read)
		wait(t, b, 0)
		kept, err := unix.Dup(int(s))
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(kept)
		before := b.Calls()
		if err := b.Shut(s, backend.CloseFlat); err != nil {
			t.Fatal(err)
		}
		if got := b.Calls().Ctl - before.Ctl; got != 0 {
			t.Errorf("the close took %d epoll_ctl", got)
		}
		_, next := dialTCP(t, b, l, addr)
		if next == s {
			t.Logf("the number %d has a new owner", s)
		}
		fresh := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: next}
		submit(t, b, fresh)
		before = b.Calls()
		for range zombieMost + 10 { // edges of a connection that is not ours any more
			send(t, b, c, "x")
			if got := wait(t, b, 0); len(got) != 0 {
				t.Fatalf("an event of the duplicate reached %+v", got)
			}
		}
		if got := b.Calls().Ctl - before.Ctl; got == 0 {
			t.Error("no new set was made")
		}
		send(t, b, c, "x")
		if got := wait(t, b, 0); len(got) != 0 || b.zombies.all != 0 {
			t.Errorf("the new set still reports the duplicate: %+v, %+v", got, b.zombies)
		}
		if err := b.Shut(next, backend.CloseFlat); err != nil {
			t.Fatal(err)
		}
	})
}

// TestHostKeepsSet: a host that watches the descriptor through a set of its own, as
// libuv and asyncio do, is told of what comes after a new set was made too (R24).
func TestHostKeepsSet(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		before := descriptors(t)
		b.Host(true)
		outer, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		fd := b.Caps().PollFD
		if errno := epollCtl(outer, unix.EPOLL_CTL_ADD, int32(fd), unix.EPOLLIN, 0); errno != 0 {
			t.Fatal(errno)
		}
		told := func() bool {
			var e [4]unix.EpollEvent
			n, err := unix.EpollWait(outer, e[:], 0)
			if err != nil {
				t.Fatal(err)
			}
			return n > 0
		}
		c, s := tcpPair(t, b)
		read := &backend.Op{Kind: backend.Read, Flags: backend.Multi, Handle: s}
		submit(t, b, read)
		for told() {
			wait(t, b, 0)
		}
		for i := range 3 {
			b.rebuild()
			b.Host(false)
			b.Host(true)
			if b.Caps().PollFD != fd {
				t.Fatalf("the host's descriptor is now %d, was %d", b.Caps().PollFD, fd)
			}
			for range 3 { // what rebuild itself told
				if told() {
					wait(t, b, 0)
				}
			}
			if told() {
				t.Fatalf("told of nothing after set %d", i+1)
			}
			send(t, b, c, "x")
			if !told() {
				t.Fatalf("not told of a byte after set %d", i+1)
			}
			if got := wait(t, b, 0); len(got) != 1 || got[0].N != 1 {
				t.Fatalf("after set %d: %+v", i+1, got)
			}
			for range 3 {
				if told() {
					wait(t, b, 0)
				}
			}
			b.Wake()
			if !told() {
				t.Fatalf("not told of a wake after set %d", i+1)
			}
			wait(t, b, 0)
		}
		unix.Close(outer)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if now := descriptors(t); now > before-2 { // ep and the waker's, which were open before
			t.Errorf("%d descriptors before, %d after Close", before, now)
		}
	})
}

// TestNumberTaken: a handle whose number now belongs to another descriptor is lost, and
// closing it does not close the other.
func TestNumberTaken(t *testing.T) {
	onStyles(t, func(t *testing.T, b *Backend) {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(p[1])
		old := adopt(t, b, p[0])
		read := &backend.Op{Kind: backend.Read, Handle: old}
		submit(t, b, read)
		unix.Close(p[0])
		h, err := b.Open(&backend.Spec{Family: backend.Inet, Bind: true, Local: loopback, Backlog: 1})
		if err != nil {
			t.Fatal(err)
		}
		if h == old {
			t.Fatal("two handles have one number")
		}
		if got := wait(t, b, time.Second); len(got) != 1 || got[0].Op != read || !errors.Is(got[0].Err, unix.EBADF) {
			t.Errorf("the old owner was told %+v", got)
		}
		if err := b.Shut(old, backend.CloseFlat); !errors.Is(err, unix.EBADF) {
			t.Errorf("Shut of the old handle: %v", err)
		}
		if _, err := b.Name(h, false); err != nil {
			t.Errorf("the new handle: %v", err)
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// TestDescriptors: closing handles and backends gives every descriptor back
// (G6).
func TestDescriptors(t *testing.T) {
	before := descriptors(t)
	for _, style := range styles {
		b := open(t, style.edge)
		for range 50 {
			c, s := tcpPair(t, b)
			submit(t, b, &backend.Op{Kind: backend.Read, Handle: s})
			if err := b.Shut(c, backend.CloseReset); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			var p [2]int
			if err := unix.Pipe2(p[:], 0); err != nil {
				t.Fatal(err)
			}
			adopt(t, b, p[0])
			if err := b.Shut(adopt(t, b, p[1]), backend.CloseFlat); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Open(&backend.Spec{Family: backend.Inet, Bind: true, Backlog: 1, Options: []backend.OptionValue{{Option: 99}}}); err == nil {
			t.Error("an unknown option was taken")
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestSlotSize: the table takes 56 bytes a descriptor.
func TestSlotSize(t *testing.T) {
	if size := unsafe.Sizeof(slot{}); unsafe.Sizeof(uintptr(0)) == 8 && size != 56 {
		t.Errorf("a slot takes %d bytes", size)
	}
}
