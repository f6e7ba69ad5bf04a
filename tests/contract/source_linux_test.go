package contract

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
)

func TestSignals(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		got := map[os.Signal]int{}
		var all []*weir.SignalHandler
		inLoop := false
		for _, sig := range []os.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGUSR1} { // two handlers for one
			h, err := l.Signal(sig, func(s os.Signal) {
				if !inLoop {
					t.Error("a handler ran outside of a turn")
				}
				got[s]++
			})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, h)
		}
		inLoop = true
		// 19: both are pending before the loop looks.
		for _, sig := range []syscall.Signal{unix.SIGUSR1, unix.SIGUSR2} {
			if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
		}
		turns(t, l, "19 both signals", func() bool { return got[unix.SIGUSR1] >= 2 && got[unix.SIGUSR2] >= 1 })
		for _, h := range all {
			h.Remove()
			h.Remove()
		}
		if _, err := l.Signal(unix.SIGKILL, func(os.Signal) {}); err == nil {
			t.Error("18: a handler for what cannot be caught")
		}
		// 18: the former disposition is back: that of SIGURG, which a program survives.
		h, err := l.Signal(unix.SIGURG, func(os.Signal) { got[unix.SIGURG]++ })
		if err != nil {
			t.Fatal(err)
		}
		h.Remove()
		if err := syscall.Kill(syscall.Getpid(), unix.SIGURG); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if got[unix.SIGURG] != 0 {
			t.Error("18: a removed handler was called")
		}
	})
}

func TestWatch(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		pair := func() (int, int) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return fds[0], fds[1]
		}
		a, b := pair()
		calls := 0
		w, err := l.Watch(a, weir.EventRead, func(e weir.Events) {
			calls++
			if e&weir.EventRead == 0 {
				t.Errorf("events %b", e)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		// R19: the second registration is an error, the first stays.
		if _, err := l.Watch(a, weir.EventWrite, func(weir.Events) { t.Error("the second watch ran") }); !errors.Is(err, weir.ErrSourceRegistered) {
			t.Errorf("R19: %v", err)
		}
		if _, err := unix.Write(b, []byte("x")); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the first watch", func() bool { return calls > 0 })
		// 8: removed and closed at once; the number is reused by another descriptor.
		w.Remove()
		w.Remove()
		_ = unix.Close(a)
		calls = 0
		c, d := pair()
		defer unix.Close(c)
		defer unix.Close(d)
		if _, err := unix.Write(b, []byte("y")); err == nil {
			t.Error("the other end is still there")
		}
		for range 5 {
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if calls != 0 {
			t.Error("8: a removed watch was called")
		}
		_ = unix.Close(b)
		w2, err := l.Watch(c, weir.EventRead, func(weir.Events) { calls++ })
		if err != nil {
			t.Fatalf("8: watching the number again: %v", err)
		}
		if _, err := unix.Write(d, []byte("z")); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the new owner's watch", func() bool { return calls > 0 })
		w2.Remove()
	})
}

// queue is a source that is not a descriptor.
type queue struct {
	wake     func()
	got      int
	attached int
	detached int
}

func (q *queue) Attach(wake func()) error { q.wake = wake; q.attached++; return nil }
func (q *queue) Dispatch()                { q.got++ }
func (q *queue) Detach()                  { q.detached++ }

func TestSource(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		q := &queue{}
		if err := l.AddSource(q); err != nil {
			t.Fatal(err)
		}
		if err := l.AddSource(q); !errors.Is(err, weir.ErrSourceRegistered) {
			t.Errorf("R19: %v", err)
		}
		go func() { // wakes before a Dispatch count as one
			for range 10 {
				q.wake()
			}
		}()
		turns(t, l, "Dispatch", func() bool { return q.got > 0 })
		if err := l.RemoveSource(q); err != nil {
			t.Fatal(err)
		}
		n := q.got
		q.wake()
		for range 3 {
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if q.got != n || q.detached != 1 || q.attached != 1 {
			t.Errorf("dispatched %d times after Detach, attached %d, detached %d", q.got-n, q.attached, q.detached)
		}
		if err := l.RemoveSource(q); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("removing it again: %v", err)
		}
	})
}

// TestGuestPoll is R24 for hosts that watch descriptors: poll on PollFD, then
// Turn(0).
func TestGuestPoll(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		fd := l.PollFD()
		if fd < 0 {
			t.Skip("no descriptor to watch")
		}
		echoed, posted, timer := false, false, false
		connectEcho(t, l, func() { echoed = true })
		l.After(5*time.Millisecond, func() {
			timer = true
			go func() { _, _ = l.Post(func() { posted = true }) }()
		})
		empty := 0
		for end := time.Now().Add(20 * time.Second); !(echoed && posted && timer); {
			if time.Now().After(end) {
				t.Fatalf("echo %v, post %v, timer %v", echoed, posted, timer)
			}
			ms := 1000
			if d, ok := l.Next(); ok {
				ms = min(ms, int((d+time.Millisecond-1)/time.Millisecond))
			}
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(p, ms)
			if err != nil && err != unix.EINTR {
				t.Fatal(err)
			}
			if n == 0 {
				empty++
			}
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		if empty > 20 {
			t.Errorf("%d turns for nothing (G9)", empty)
		}
	})
}

func TestPipes(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		for _, full := range []bool{false, true} {
			var reason error
			lost := false
			w := &writerEnd{lost: func(err error) { lost, reason = true, err }}
			r, wt, err := l.Pipe(
				func(weir.Transport) weir.Protocol { return &lastWords{lost: func(error) {}} },
				func(weir.Transport) weir.Protocol { return w })
			if err != nil {
				t.Fatal(err)
			}
			r.PauseReading()
			for full && !w.paused {
				if _, err := wt.Write(make([]byte, 100_000)); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				if err := l.Turn(time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			if lost {
				t.Fatalf("lost while the reader is there: %v", reason)
			}
			r.Close()
			turns(t, l, "59 the loss", func() bool { return lost })
			if !errors.Is(reason, unix.EPIPE) {
				t.Errorf("59 (buffer full: %v): lost with %v", full, reason)
			}
		}
	})
}

type writerEnd struct {
	lastWords
	paused bool
	lost   func(error)
}

func (p *writerEnd) PauseWriting()            { p.paused = true }
func (p *writerEnd) ResumeWriting()           { p.paused = false }
func (p *writerEnd) ConnectionLost(err error) { p.lost(err) }

// collector keeps what it gets.
type collector struct {
	weir.NopProtocol
	got   []byte
	ended bool
	err   error
}

func (c *collector) DataReceived(p []byte) (int, error) {
	c.got = append(c.got, p...)
	return len(p), nil
}
func (c *collector) ConnectionLost(err error) { c.ended, c.err = true, err }

// TestPlainFiles is behaviour 61.
func TestPlainFiles(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		name := filepath.Join(t.TempDir(), "out")
		open := func(flag int) int {
			fd, err := unix.Open(name, flag|unix.O_CLOEXEC, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
		lost := false
		var reason error
		tr, err := l.AttachPair(-1, open(unix.O_WRONLY|unix.O_CREAT), "out", func(weir.Transport) weir.Protocol {
			return &lastWords{lost: func(err error) { lost, reason = true, err }}
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(want); i += 1000 {
			if _, err := tr.Write(want[i:min(i+1000, len(want))]); err != nil {
				t.Fatal(err)
			}
		}
		tr.Close()
		turns(t, l, "the end of writing", func() bool { return lost })
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) || reason != nil {
			t.Fatalf("%d of %d bytes in the file, %v, lost with %v", len(got), len(want), err, reason)
		}
		c := &collector{}
		if _, err := l.AttachPair(open(unix.O_RDONLY), -1, "in", func(weir.Transport) weir.Protocol { return c }); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the end of reading", func() bool { return c.ended })
		if !bytes.Equal(c.got, want) || c.err != nil {
			t.Errorf("read %d of %d bytes, lost with %v", len(c.got), len(want), c.err)
		}
	})
}

// TestAttachRefused: descriptors that Attach refuses stay open and remain the
// caller's, both of a pair too (R27).
func TestAttachRefused(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(p[0])
		defer unix.Close(p[1])
		none := func(weir.Transport) weir.Protocol { t.Error("made"); return nil }
		// The end to read cannot be written, and 1<<20 is not a descriptor.
		for _, w := range []int{p[0], 1 << 20} {
			r, err := unix.Dup(p[0])
			if err != nil {
				t.Fatal(err)
			}
			if w == p[0] {
				w, err = unix.Dup(p[0])
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(w)
			}
			if _, err := l.AttachPair(r, w, "pair", none); err == nil {
				t.Error("no error")
			}
			if err := unix.Close(r); err != nil {
				t.Errorf("the first descriptor: %v", err)
			}
		}
		if l.Connections() != 0 {
			t.Errorf("%d connections", l.Connections())
		}
		var b [1]byte
		if _, err := unix.Write(p[1], []byte("x")); err != nil {
			t.Error(err)
		}
		if n, err := unix.Read(p[0], b[:]); n != 1 || err != nil {
			t.Error(n, err)
		}
	})
}

// TestWatchClosedBehindBack: a watched descriptor that was closed, or whose number
// has gone to another file, is reported once as Failed, although a duplicate keeps
// the file open and ready (behaviour 8, G9).
func TestWatchClosedBehindBack(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		for _, reused := range []bool{false, true} {
			p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(p[1])
			calls, last := 0, weir.Events(0)
			w, err := l.Watch(p[0], weir.EventRead, func(e weir.Events) { calls++; last = e })
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			kept, err := unix.Dup(p[0])
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(kept)
			if reused {
				var q [2]int
				if err := unix.Pipe2(q[:], unix.O_CLOEXEC); err != nil {
					t.Fatal(err)
				}
				defer unix.Close(q[1])
				if err := unix.Dup2(q[0], p[0]); err != nil {
					t.Fatal(err)
				}
				defer unix.Close(p[0])
				_ = unix.Close(q[0])
			} else if err := unix.Close(p[0]); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(p[1], []byte("x")); err != nil {
				t.Fatal(err)
			}
			turns(t, l, "the end of the watch", func() bool { return last == weir.EventError || calls > 100 })
			if calls > 2 || last != weir.EventError {
				t.Fatalf("reused %t: %d calls, the last with %v", reused, calls, last)
			}
			var we *weir.WatchError
			if !errors.As(w.Err(), &we) || we.FD != p[0] || !errors.Is(we, unix.EBADF) {
				t.Errorf("reused %t: the watch ended with %v", reused, w.Err())
			}
			calls = 0
			for began := time.Now(); ; {
				if err := l.Turn(20 * time.Millisecond); err != nil {
					t.Fatal(err)
				}
				if time.Since(began) >= 20*time.Millisecond {
					break
				}
				if calls++; calls > 20 {
					t.Fatal("the loop spins (G9)")
				}
			}
		}
	})
}

// TestWatchChanges: the events of a watch are changed, stopped and started by its handle
// (R65), inside its callback and outside, with results under way.
func TestWatchChanges(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		closed := false
		defer func() {
			_ = unix.Close(p[1])
			if !closed {
				_ = unix.Close(p[0])
			}
		}()
		var calls int
		var seen weir.Events
		var inside func()
		w, err := l.Watch(p[0], weir.EventRead, func(e weir.Events) {
			calls++
			seen |= e
			if inside != nil {
				inside()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		none := func(when string) {
			t.Helper()
			calls, seen = 0, 0
			began := time.Now()
			for range 3 {
				if err := l.Turn(5 * time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			if calls != 0 {
				t.Fatalf("%s: %d calls with %b", when, calls, seen)
			}
			if d := time.Since(began); d < 10*time.Millisecond {
				t.Fatalf("%s: three turns that wait 5 ms took %v (G9)", when, d)
			}
		}
		some := func(when string, want weir.Events) {
			t.Helper()
			calls, seen = 0, 0
			turns(t, l, when, func() bool { return calls > 2 })
			if seen != want {
				t.Fatalf("%s: events %b, want %b", when, seen, want)
			}
		}
		none("with nothing to read")
		w.SetEvents(weir.EventWrite)
		some("writable", weir.EventWrite)
		if _, err := unix.Write(p[1], []byte("unread")); err != nil {
			t.Fatal(err)
		}
		some("writable, with bytes", weir.EventWrite)
		w.SetEvents(weir.EventRead | weir.EventWrite)
		some("both", weir.EventRead|weir.EventWrite)
		w.SetEvents(weir.EventRead)
		some("readable", weir.EventRead)
		if w.Events() != weir.EventRead {
			t.Errorf("Events is %b", w.Events())
		}

		w.Stop()
		w.Stop()
		none("stopped")
		if _, err := l.Watch(p[0], weir.EventRead, func(weir.Events) {}); !errors.Is(err, weir.ErrSourceRegistered) {
			t.Errorf("R19: a second watch beside a stopped one: %v", err)
		}
		w.SetEvents(weir.EventWrite)
		none("changed while stopped")
		w.Start()
		w.Start()
		some("started", weir.EventWrite)

		// Back and forth before the loop looks, and within the callback.
		for range 10 {
			w.Stop()
			w.SetEvents(weir.EventRead)
			w.Start()
			w.SetEvents(weir.EventWrite)
			w.SetEvents(weir.EventRead)
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		some("changed many times", weir.EventRead)
		flips := 0
		inside = func() {
			flips++
			if w.Stop(); flips%2 == 0 {
				w.SetEvents(weir.EventRead)
			} else {
				w.SetEvents(weir.EventWrite)
			}
			w.Start()
		}
		turns(t, l, "changes within the callback", func() bool { return flips > 20 })
		inside = w.Stop
		calls = 0
		turns(t, l, "a stop within the callback", func() bool { return calls > 0 })
		inside = nil
		none("stopped within the callback")

		// Without events there is still the error.
		w.SetEvents(0)
		w.Start()
		none("no events")
		if err := unix.Shutdown(p[1], unix.SHUT_RDWR); err != nil {
			t.Fatal(err)
		}
		some("the hang-up", weir.EventError)
		w.Stop()
		none("a hang-up while stopped")

		// Closed while stopped, which is allowed: started again, it ends.
		closed = true
		_ = unix.Close(p[0])
		_ = unix.Close(p[1])
		calls, seen = 0, 0
		none("closed while stopped")
		w.SetEvents(weir.EventRead)
		w.Start()
		turns(t, l, "the end", func() bool { return calls > 0 })
		var we *weir.WatchError
		if !errors.As(w.Err(), &we) || we.FD != p[0] || !errors.Is(we, unix.EBADF) || seen != weir.EventError {
			t.Errorf("ended with %v, events %b", w.Err(), seen)
		}
		w.Start()
		w.Stop()
		w.SetEvents(weir.EventRead)
		w.Remove()
		none("over")
	})
}

// socketPair makes two connected descriptors, as others hand them to a watch.
func socketPair(t *testing.T) (a, b int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p[0], p[1]
}

// TestWatchNumberReused: the number of a watched descriptor that was stopped and closed
// becomes a connection of the loop's, which the end of the watch leaves alone
// (behaviour 8).
func TestWatchNumberReused(t *testing.T) {
	for _, ended := range []string{"removed", "by itself"} {
		t.Run(ended, func(t *testing.T) {
			onRealLoops(t, func(t *testing.T, l *weir.Loop) {
				a, b := socketPair(t)
				calls := 0
				w, err := l.Watch(a, weir.EventRead, func(weir.Events) { calls++ })
				if err != nil {
					t.Fatal(err)
				}
				if _, err := unix.Write(b, []byte("x")); err != nil {
					t.Fatal(err)
				}
				turns(t, l, "the watch", func() bool { return calls > 0 })
				w.Stop()
				if ended == "by itself" {
					// The end of the Op that stopped is not what ends the watch.
					for range 3 {
						if err := l.Turn(time.Millisecond); err != nil {
							t.Fatal(err)
						}
					}
				}
				_ = unix.Close(a)
				_ = unix.Close(b)
				if ended == "by itself" {
					w.Start() // of a closed descriptor
				}
				c, d := socketPair(t)
				defer unix.Close(d)
				if c != a {
					if err := unix.Dup3(c, a, unix.O_CLOEXEC); err != nil {
						t.Fatal(err)
					}
					_ = unix.Close(c)
				}
				in := &collector{}
				tr, err := l.Attach(a, "reused", func(weir.Transport) weir.Protocol { return in })
				if err != nil {
					t.Fatal(err)
				}
				if ended == "by itself" {
					turns(t, l, "the end of the watch", func() bool { return w.Err() != nil })
				} else {
					w.Remove()
				}
				if _, err := unix.Write(d, []byte("y")); err != nil {
					t.Fatal(err)
				}
				turns(t, l, "bytes for the connection", func() bool { return string(in.got) == "y" })
				// A check of all descriptors finds nothing wrong with it.
				over := false
				l.After(300*time.Millisecond, func() { over = true })
				turns(t, l, "a while", func() bool { return over })
				if _, err := unix.Write(d, []byte("z")); err != nil {
					t.Fatal(err)
				}
				turns(t, l, "more bytes", func() bool { return string(in.got) == "yz" || in.ended })
				if in.ended {
					t.Fatalf("the connection ended with %v", in.err)
				}
				tr.Close()
				turns(t, l, "its end", func() bool { return in.ended })
			})
		})
	}
}

// TestWatchAgain: a descriptor can be watched again at once when its watch is removed,
// inside the callback and outside, open still or closed and made again (R19).
func TestWatchAgain(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		a, b := socketPair(t)
		defer func() {
			_ = unix.Close(a)
			_ = unix.Close(b)
		}()
		calls := 0
		var w *weir.Watch
		var inside func()
		fn := func(e weir.Events) {
			calls++
			if e != weir.EventRead {
				t.Fatalf("events %b, the watch ended with %v", e, w.Err())
			}
			if inside != nil {
				inside()
			}
		}
		again := func() {
			if w != nil {
				w.Remove()
			}
			var err error
			if w, err = l.Watch(a, weir.EventRead, fn); err != nil {
				t.Fatal(err)
			}
		}
		called := func(when string) {
			t.Helper()
			calls = 0
			turns(t, l, when, func() bool { return calls > 2 })
		}
		again()
		again() // before the backend has seen it
		if _, err := unix.Write(b, []byte("x")); err != nil {
			t.Fatal(err)
		}
		called("watched twice")
		again()
		called("watched again")
		inside = again
		called("watched again in the callback")
		inside = nil
		for range 3 {
			w.Remove()
			_ = unix.Close(a)
			_ = unix.Close(b)
			w = nil
			c, d := socketPair(t)
			if c != a {
				if err := unix.Dup3(c, a, unix.O_CLOEXEC); err != nil {
					t.Fatal(err)
				}
				_ = unix.Close(c)
			}
			b = d
			again()
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(b, []byte("x")); err != nil {
				t.Fatal(err)
			}
			called("closed and made again")
		}
		w.Remove()
		calls = 0
		for range 3 {
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if calls != 0 {
			t.Errorf("%d calls after Remove", calls)
		}
	})
}

// TestWatchStoppedLetsGo: while a watch is stopped the loop keeps nothing of the
// descriptor: its close is seen by the peer, and Start watches what has the number then.
func TestWatchStoppedLetsGo(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		a, b := socketPair(t)
		defer unix.Close(b)
		calls, last := 0, weir.Events(0)
		w, err := l.Watch(a, weir.EventRead, func(e weir.Events) { calls++; last = e })
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		w.Stop()
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(a)
		var one [1]byte
		if n, err := unix.Read(b, one[:]); n != 0 || err != nil {
			t.Errorf("the peer of a closed descriptor reads %d, %v", n, err)
		}
		c, d := socketPair(t)
		defer unix.Close(d)
		if c != a {
			if err := unix.Dup3(c, a, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			_ = unix.Close(c)
		}
		defer unix.Close(a)
		w.Start()
		for range 3 {
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if calls != 0 {
			t.Fatalf("%d calls for a file that is not there any more, the last with %b", calls, last)
		}
		if _, err := unix.Write(d, []byte("x")); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "the new file", func() bool { return calls > 0 })
		if last != weir.EventRead {
			t.Errorf("events %b, the watch ended with %v", last, w.Err())
		}
		w.Remove()
	})
}

// TestWatchListener: a watch of a listener takes no connection from its owner, and
// Remove lets go of it.
func TestWatchListener(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		closed := false
		defer func() {
			if !closed {
				_ = unix.Close(fd)
			}
		}()
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(fd, 4); err != nil {
			t.Fatal(err)
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*unix.SockaddrInet4).Port}
		calls, last := 0, weir.Events(0)
		w, err := l.Watch(fd, weir.EventRead, func(e weir.Events) { calls++; last = e })
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			calls = 0
			c := dial(t, addr, 1)[0]
			turns(t, l, "the watch", func() bool { return calls > 1 })
			if last != weir.EventRead {
				t.Fatalf("events %b, the watch ended with %v", last, w.Err())
			}
			nfd, _, err := unix.Accept(fd)
			if err != nil {
				t.Fatalf("the owner accepts: %v", err)
			}
			_ = unix.Close(nfd)
			_ = c.Close()
		}
		calls = 0
		for range 3 {
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if calls > 1 { // one that was under way
			t.Errorf("%d calls with no connection there", calls)
		}
		w.Remove()
		closed = true
		_ = unix.Close(fd)
		if c, err := net.DialTimeout("tcp", addr.String(), 5*time.Second); err == nil {
			_ = c.Close()
			t.Error("a closed listener still takes connections")
		}
	})
}

// TestWatchDatagrams: a watch of a datagram socket takes no datagram from its owner, not even
// an empty one, and says when there is another (R15).
func TestWatchDatagrams(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		bound := func() (fd int, at unix.Sockaddr) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Close(fd) })
			if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
			if at, err = unix.Getsockname(fd); err != nil {
				t.Fatal(err)
			}
			return fd, at
		}
		fd, at := bound()
		peer, from := bound()
		for _, connected := range [...]bool{false, true} {
			if connected {
				if err := unix.Connect(fd, from); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			calls := 0
			w, err := l.Watch(fd, weir.EventRead, func(weir.Events) {
				calls++
				var b [64]byte
				n, _, err := unix.Recvfrom(fd, b[:], 0)
				if err == nil {
					got = append(got, string(b[:n]))
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, said := range [...]string{"one", "", "three", "four"} {
				before := len(got)
				if err := unix.Sendto(peer, []byte(said), 0, at); err != nil {
					t.Fatal(err)
				}
				turns(t, l, "a datagram", func() bool { return len(got) > before })
				if got[before] != said {
					t.Errorf("the owner got %q, want %q", got[before], said)
				}
				for range 3 { // its goroutine, where there is one, may look again
					if err := l.Turn(time.Millisecond); err != nil {
						t.Fatal(err)
					}
				}
			}
			if len(got) != 4 || calls > 2*len(got) {
				t.Errorf("%d calls for 4 datagrams, of which the owner got %q", calls, got)
			}
			w.Remove()
			// Without a watch nothing reads either.
			if err := unix.Sendto(peer, []byte("later"), 0, at); err != nil {
				t.Fatal(err)
			}
			if err := l.Turn(time.Millisecond); err != nil {
				t.Fatal(err)
			}
			var b [64]byte
			if n, _, err := unix.Recvfrom(fd, b[:], 0); err != nil || string(b[:n]) != "later" {
				t.Errorf("after Remove the owner got %q, %v", b[:max(n, 0)], err)
			}
		}
	})
}
