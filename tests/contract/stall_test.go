package contract

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/portable"
)

// inTime has a timer as a limit for its peer's next bytes, and notes what comes.
type inTime struct {
	t     weir.Transport
	limit *weir.Timer
	seen  []string
	lost  bool
}

func (p *inTime) ConnectionMade(t weir.Transport) { p.t = t }
func (p *inTime) DataReceived(b []byte) (int, error) {
	p.seen = append(p.seen, string(b))
	p.limit.Set(p.limit.Interval())
	return len(b), nil
}
func (p *inTime) ConnectionLost(error) { p.lost = true }

// TestReadBeforeLimits: bytes that were there before a timer was due are
// delivered before it fires, even if the loop did not get to run in between.
func TestReadBeforeLimits(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		const limit = 100 * time.Millisecond
		all := make([]*inTime, 0, 300) // more than one Wait reports
		var peers []net.Conn
		ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
			p := &inTime{}
			p.limit = l.NewTimer(func() { p.seen = append(p.seen, "limit") })
			all = append(all, p)
			return p
		})
		if err != nil {
			t.Fatal(err)
		}
		for range cap(all) {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			peers = append(peers, c)
			turns(t, l, "the connection", func() bool { return len(all) == len(peers) && all[len(all)-1].t != nil })
		}
		// One callback that holds up the loop, as a stop signal would.
		held := false
		l.After(0, func() {
			for _, p := range all {
				p.limit.Set(limit)
			}
			for _, c := range peers {
				if _, err := c.Write([]byte("in time")); err != nil {
					t.Error(err)
				}
			}
			<-time.After(2 * limit)
			held = true
		})
		turns(t, l, "an end of each", func() bool {
			return held && !slices.ContainsFunc(all, func(p *inTime) bool { return len(p.seen) == 0 })
		})
		for i, p := range all {
			if p.seen[0] != "in time" {
				t.Fatalf("connection %d: %q; the bytes were there before the limit", i, p.seen)
			}
		}
	})
}

// lateWait is a backend whose Wait once returns late with nothing, as it does
// when the process was stopped between the kernel's answer and its return.
type lateWait struct {
	backend.Backend
	late func()
}

func (b *lateWait) Wait(timeout time.Duration, done []backend.Completion) (int, error) {
	if late := b.late; late != nil && timeout > 0 {
		b.late = nil
		late()
		return 0, nil
	}
	return b.Backend.Wait(timeout, done)
}

// TestReadBeforeLimitsStopped: the same with the process stopped inside Wait.
func TestReadBeforeLimitsStopped(t *testing.T) {
	be, err := portable.New()
	if err != nil {
		t.Fatal(err)
	}
	held := &lateWait{Backend: be}
	l := newLoop(t, weir.WithBackend(held))
	defer l.Close()
	p := &inTime{}
	p.limit = l.NewTimer(func() { p.seen = append(p.seen, "limit") })
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return p })
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, ln.Addr(), 1)[0]
	turns(t, l, "the connection", func() bool { return p.t != nil })
	const limit = 500 * time.Millisecond // much longer than until the loop waits
	held.late = func() {
		if _, err := c.Write([]byte("in time")); err != nil {
			t.Error(err)
		}
		<-time.After(2 * limit) // the stop, which is under test
	}
	p.limit.Set(limit)
	turns(t, l, "what is first", func() bool { return len(p.seen) > 0 })
	if held.late != nil || p.seen[0] != "in time" {
		t.Errorf("%q; the bytes were there before the limit", p.seen)
	}
}

// oneBusy is a backend with one connection that always has data.
type oneBusy struct {
	backend.Backend
	op    backend.Op
	waits int
}

func (b *oneBusy) OpDone(*backend.Completion) {}

func (b *oneBusy) Wait(timeout time.Duration, done []backend.Completion) (int, error) {
	b.waits++
	b.op.Owner = b
	done[0] = backend.Completion{Op: &b.op}
	return 1, nil
}

// TestBusyBeforeTimers: the loop looks for I/O before a due timer in a few Waits,
// not in one for each connection that it has.
func TestBusyBeforeTimers(t *testing.T) {
	inner, err := portable.New()
	if err != nil {
		t.Fatal(err)
	}
	b := &oneBusy{Backend: inner}
	l, err := weir.NewLoop(weir.WithBackend(b))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const timers = 10
	for range timers {
		fired := false
		l.After(0, func() { fired = true })
		before := b.waits
		for !fired {
			if err := l.Turn(0); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.waits - before; n > 20 {
			t.Fatalf("%d Waits before a timer that was due", n)
		}
	}
}

// TestCloseAgainstPosts: callbacks that post more while the loop is closed do not
// keep it open, and each accepted post is reported or counted (L2, L6).
func TestCloseAgainstPosts(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		posted, told := 0, 0
		var again func()
		again = func() {
			told++
			if c, err := l.PostOr(func() { t.Error("it ran") }, again); err == nil && c != nil {
				posted++
			}
		}
		if _, err := l.PostOr(func() { t.Error("it ran") }, again); err != nil {
			t.Fatal(err)
		}
		posted++
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if posted != told {
			t.Errorf("%d posted, %d told", posted, told)
		}
	})
}
