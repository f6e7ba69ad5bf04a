//go:build linux

package uring

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/backend"
)

// The hazards of io_uring, one test each: docs/promises.md lists them, as bugs 8,
// 13, 24 and 25 among others.

// configs are the configurations to run tests in that must pass whatever the kernel has.
var configs = []struct {
	name   string
	config Config
}{
	{"full", Config{}},
	{"any thread", Config{Without: SingleIssuer}},
	{"whole buffers", Config{Without: Incremental}},
	{"single shot", Config{Without: MultiAccept | MultiRecv}},
	{"least", Config{Without: everything}},
	{"tiny", Config{Entries: 2, Completions: 4, Buffers: 2, BufferSize: 64}},
	{"tiny, whole buffers", Config{Entries: 2, Completions: 4, Buffers: 2, BufferSize: 64, Without: Incremental}},
}

// A completion that comes when its slot belongs to another Op is ignored.
func TestLateCompletion(t *testing.T) {
	r := newRig(t, Config{})
	h, c := r.pair()
	op := r.read(h)
	r.send(c, []byte("one"))
	r.until("data", func() bool { return r.buf[op].n == 3 })
	late := r.slots.data(op.Slot)
	r.cancel(op)
	again := r.read(h)
	if again.Slot != uint32(late) || r.slots.data(again.Slot) == late {
		t.Fatalf("slot %d after %d: not the same slot in another generation", again.Slot, uint32(late))
	}
	for _, data := range []uint64{late, late + 1000, 1<<63 | 5} {
		e := r.ring.next()
		e.opcode, e.userData = opNop, data
		r.inFlight++
	}
	r.turn(0)
	if r.stats.Late != 3 || r.buf[again].results != 0 || !again.Armed() {
		t.Fatalf("%d late completions, %d results", r.stats.Late, r.buf[again].results)
	}
	r.send(c, []byte("two"))
	r.until("data", func() bool { return string(r.buf[again].data) == "two" })
}

// A descriptor whose receive was canceled is gone when it is closed: its peer
// sees the end at once, without another Wait.
func TestCloseSendsFIN(t *testing.T) {
	for _, how := range []backend.How{backend.CloseFlat, backend.CloseReset} {
		r := newRig(t, Config{})
		h, c := r.pair()
		rd, hup := r.read(h), r.arm(&backend.Op{Kind: backend.Hangup, Handle: h})
		r.turn(0)
		r.cancel(rd)
		r.cancel(hup)
		if err := r.Shut(h, how); err != nil {
			t.Fatal(err)
		}
		got, err := receive(c, 1)
		if want := how == backend.CloseReset; len(got) != 0 || errors.Is(err, syscall.ECONNRESET) != want {
			t.Fatalf("how %d: the peer read %q, %v", how, got, err)
		}
	}
}

// A number that is reused for another connection carries over nothing from the old one,
// whatever was in flight: connections are torn down in the middle of data.
func TestNumberReuse(t *testing.T) {
	for _, k := range configs {
		t.Run(k.name, func(t *testing.T) {
			r := newRig(t, k.config)
			reused := 0
			last := backend.None
			for i := range 200 {
				server, client := tcpPairs(t, 1)
				c := client[0]
				h, err := r.Adopt(server[0])
				if err != nil {
					t.Fatal(err)
				}
				if h == last {
					reused++
				}
				last = h
				op := r.read(h)
				mine := []byte(fmt.Sprintf("connection %d|", i))
				for range 20 {
					r.send(c, mine)
				}
				r.until("data", func() bool { return r.buf[op].n > 0 })
				rec := r.cancel(op)
				if err := r.Shut(h, backend.CloseFlat); err != nil {
					t.Fatal(err)
				}
				unix.Close(c)
				for at, b := range rec.data {
					if b != mine[at%len(mine)] {
						t.Fatalf("connection %d got %q", i, rec.data)
					}
				}
			}
			if reused < 100 {
				t.Fatalf("only %d numbers were reused", reused)
			}
		})
	}
}

// Receives that find no buffer are armed again, and no byte is lost or mixed up, with
// smaller buffers, and far fewer of them than there are connections.
func TestNoBuffers(t *testing.T) {
	for _, without := range []Features{0, Incremental, MultiRecv, Incremental | MultiRecv} {
		t.Run(fmt.Sprintf("without %b", without), func(t *testing.T) {
			r := newRig(t, Config{Buffers: 2, BufferSize: 64, Without: without})
			const conns, size = 50, 5000
			ops := make([]*backend.Op, conns)
			for i := range ops {
				h, c := r.pair()
				r.send(c, pattern(size, i))
				ops[i] = r.read(h)
			}
			for i, op := range ops {
				r.until("data", func() bool { return r.buf[op].n >= size })
				wantBytes(t, fmt.Sprint("connection ", i), r.buf[op].data, pattern(size, i))
			}
			if r.stats.NoBuffer == 0 {
				t.Error("there always was a buffer: the test tests nothing")
			}
		})
	}
}

// More completions than the queue holds: the kernel keeps them, ends multishot
// operations, and nothing is lost.
func TestOverflow(t *testing.T) {
	for _, without := range []Features{0, Incremental, SingleIssuer, TaskrunFlag} {
		t.Run(fmt.Sprintf("without %b", without), func(t *testing.T) {
			r := newRig(t, Config{Entries: 4, Completions: 4, Without: without})
			const conns, rounds = 100, 5
			ops, peers := make([]*backend.Op, conns), make([]int, conns)
			for i := range ops {
				var h backend.Handle
				h, peers[i] = r.pair()
				ops[i] = r.read(h)
			}
			r.turn(0)
			for round := range rounds {
				for i, c := range peers {
					r.send(c, pattern(100, i*rounds+round))
				}
				for i, op := range ops {
					r.until("data", func() bool { return r.buf[op].n >= (round+1)*100 })
					wantBytes(t, "message", r.buf[op].data[round*100:], pattern(100, i*rounds+round))
				}
			}
			if r.stats.Overflows == 0 {
				t.Error("nothing overflowed: the test tests nothing")
			}
			t.Logf("%d overflows, %d multishot receives ended early", r.stats.Overflows, r.stats.Rearmed)
		})
	}
}

// A multishot operation that the kernel ends without the more-flag goes on: for
// the loop, with a result that says More.
func TestEndedEarly(t *testing.T) {
	r := newRig(t, Config{})
	h, c := r.pair()
	op := r.read(h)
	r.turn(0)
	// The queue's entry is forged to say that this was the last one.
	r.send(c, []byte("one"))
	for r.ring.ready() == 0 {
		if errno := r.ring.enter(true, true, time.Second); errno != 0 && errno != syscall.EINTR {
			t.Fatal(errno)
		}
	}
	data := r.slots.data(op.Slot)
	forged := false
	for i := range r.ring.ready() {
		if e := r.ring.peek(i); e.userData == data {
			e.flags &^= cqeMore
			forged = true
		}
	}
	if !forged {
		t.Fatal("no completion to forge")
	}
	// The submission that is in fact still there goes first.
	e := r.ring.next()
	e.opcode, e.fd, e.addr, e.userData = opAsyncCancel, -1, data, dataIgnore
	r.inFlight++ // its own last completion
	r.until("data", func() bool { return r.buf[op].n == 3 })
	if rec := r.buf[op]; rec.ended || !op.Armed() || r.stats.Rearmed == 0 {
		t.Fatalf("ended %t, armed %t, rearmed %d", rec.ended, op.Armed(), r.stats.Rearmed)
	}
}

// Canceling races with completing: an Op ends once, and received bytes go to it or to
// the next.
func TestCancelRacesComplete(t *testing.T) {
	for _, k := range configs {
		t.Run(k.name, func(t *testing.T) {
			r := newRig(t, k.config)
			h, c := r.pair()
			const rounds = 300
			var want []byte
			sizes := make(chan int)
			var wg sync.WaitGroup
			wg.Go(func() { // writes while the Op is armed and canceled
				for n := range sizes {
					p := pattern(n, len(want))
					want = append(want, p...)
					if _, err := unix.Write(c, p); err != nil {
						t.Error(err)
					}
				}
				unix.Shutdown(c, unix.SHUT_WR)
			})
			var got []byte
			finished := 0
			for range rounds {
				op := r.arm(&backend.Op{Kind: backend.Read, Flags: backend.Flags(rand.IntN(2)) * backend.Multi, Handle: h})
				sizes <- 1 + rand.IntN(300)
				for range rand.IntN(3) {
					r.turn(time.Millisecond)
				}
				rec := r.cancel(op)
				got = append(got, rec.data...)
				if rec.ended && rec.err != backend.ErrCanceled {
					finished++
				}
			}
			close(sizes)
			rest := r.read(h)
			r.until("end", func() bool { return r.buf[rest].ended })
			got = append(got, r.buf[rest].data...)
			wg.Wait()
			cancels := rounds
			wantBytes(t, "stream", got, want)
			if finished == 0 || finished == cancels {
				t.Errorf("of %d canceled, %d were done before: the test tests nothing", cancels, finished)
			}
		})
	}
}

// Writes to a slower reader fall short; the rest is sent again, quiet or not.
func TestShortSends(t *testing.T) {
	for _, k := range configs {
		for _, f := range []backend.Flags{0, backend.Quiet} {
			t.Run(fmt.Sprint(k.name, f), func(t *testing.T) {
				r := newRig(t, k.config)
				s, cs := tcpPairs(t, 1)
				if err := unix.SetsockoptInt(s[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10); err != nil {
					t.Fatal(err)
				}
				h, c := r.adopted(s[0], cs[0])
				const size = 12 << 20 // more than a receiver that does not read takes
				want := pattern(size, 3)
				var got []byte
				var err error
				read := make(chan struct{})
				reads := sync.OnceFunc(func() {
					go func() {
						got, err = receive(c, size)
						close(read)
					}()
				})
				short := 0
				for rest := want; len(rest) > 0; {
					half := len(rest) / 2
					op := r.write(h, f, rest[:half], nil, rest[half:])
					if f != 0 {
						r.turn(time.Millisecond)
						op.Flags = 0 // it may already be sent whole, or have to wait
					}
					r.turn(0)
					reads() // by now the first write has filled the buffers
					r.until("write", func() bool { return r.buf[op].ended })
					rec := r.buf[op]
					if rec.err != nil || rec.n <= 0 {
						t.Fatalf("wrote %d, %v", rec.n, rec.err)
					}
					if rec.n < len(rest) {
						short++
					}
					rest = rest[rec.n:]
				}
				<-read
				if err != nil {
					t.Fatal(err)
				}
				wantBytes(t, "stream", got, want)
				if short == 0 {
					t.Error("no write was short: the test tests nothing")
				}
			})
		}
	}
}

// A quiet write that does not fit at all waits like any other, and its success is
// reported.
func TestQuietWaits(t *testing.T) {
	r := newRig(t, Config{})
	h, c := r.pair()
	total := 0
	block := pattern(1<<20, 1)
	var last *backend.Op
	for last == nil {
		op := r.write(h, backend.Quiet, block)
		r.turn(0)
		r.turn(20 * time.Millisecond)
		if rec := r.buf[op]; rec.ended {
			total += rec.n
			continue
		}
		last = op
	}
	var got int
	var err error
	read := make(chan struct{})
	go func() {
		defer close(read)
		var p []byte
		p, err = receive(c, total+1)
		got = len(p)
	}()
	r.until("the write that had to wait", func() bool { return r.buf[last].ended })
	<-read
	if rec := r.buf[last]; rec.err != nil || rec.n == 0 || err != nil || got != total+1 {
		t.Fatalf("%+v; the peer read %d of %d, %v", rec, got, total, err)
	}
}

// Refusals by the system are reported unchanged, so that another backend can serve;
// nothing is left open.
func TestRefused(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.EPERM, syscall.ENOMEM} {
		onThread(func() { // which dies with its filter
			if err := refuse(unix.SYS_IO_URING_SETUP, errno); err != nil {
				t.Skipf("no seccomp here: %v", err)
			}
			before := openDescriptors(t)
			if b, err := New(Config{}); !errors.Is(err, errno) {
				t.Errorf("New with %v refused: %v, %v", errno, b, err)
			}
			if after := openDescriptors(t); after != before {
				t.Errorf("%d descriptors, %d before", after, before)
			}
		})
	}
}

// A ring that the kernel no longer serves ends its loop with an error that says
// what to do, and closing it comes to an end.
func TestEnterFails(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.EBADR} {
		onThread(func() { // which dies with its filter
			b, err := New(Config{})
			if err != nil {
				t.Error(err)
				return
			}
			done := make([]backend.Completion, 4)
			if _, err = b.Wait(0, done); err != nil {
				t.Error(err)
			}
			if err = refuse(unix.SYS_IO_URING_ENTER, errno); err != nil {
				_ = b.Close()
				t.Skipf("no seccomp here: %v", err)
			}
			b.Wake()
			for range 3 {
				if _, err = b.Wait(time.Millisecond, done); err != nil {
					break
				}
			}
			if !errors.Is(err, errno) || !strings.Contains(err.Error(), "WEIR_BACKEND") {
				t.Errorf("Wait with %v: %v", errno, err)
			}
			_ = b.Close() // in whatever way the kernel lets it
		})
	}
}

// While the kernel has no memory for the ring, a Wait with timeout 0 does not wait, any
// other returns for the loop's timers, and after some seconds the loop gets an error.
func TestEnterShort(t *testing.T) {
	onThread(func() { // which dies with its filter
		r := newRig(t, Config{})
		h, _ := r.pair()
		if err := refuse(unix.SYS_IO_URING_ENTER, syscall.ENOMEM); err != nil {
			t.Skipf("no seccomp here: %v", err)
		}
		r.read(h) // so that there is something to pass on
		done := make([]backend.Completion, 4)
		const waits = 200
		quickest := time.Hour
		for range waits {
			began := time.Now()
			if n, err := r.Wait(0, done); n != 0 || err != nil {
				t.Errorf("Wait: %d, %v", n, err)
				return
			}
			quickest = min(quickest, time.Since(began))
		}
		if quickest >= shortWait { // others may have been held up
			t.Errorf("the quickest of %d Waits that are not to wait took %v", waits, quickest)
		}
		if n, err := r.Wait(-1, done); n != 0 || err != nil {
			t.Errorf("Wait for ever: %d, %v", n, err)
		}
		r.shortSince -= shortMost
		if _, err := r.Wait(-1, done); !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("after a long time: %v", err)
		}
	})
}
