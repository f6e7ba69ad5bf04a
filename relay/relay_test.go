package relay_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/weirtest"
)

// pair is a relay between two recorders.
type pair struct {
	*relay.Relay
	t      *testing.T
	a, b   *weirtest.Recorder
	events []string
	res    *relay.Result
	again  bool // what Failed returns

	leftFor time.Duration // what Left returns
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, a: weirtest.NewRecorder(t), b: weirtest.NewRecorder(t)}
	p.Relay = relay.New(relay.Config{
		Connected: func() { p.events = append(p.events, "connected") },
		Failed: func(s relay.Side, _ *weir.ConnectError) bool {
			p.events = append(p.events, "failed "+s.String())
			return p.again
		},
		Left: func(s relay.Side) time.Duration {
			p.events = append(p.events, "left "+s.String())
			return p.leftFor
		},
		Abandon: func(s relay.Side) { p.events = append(p.events, "abandon "+s.String()) },
		Done: func(r relay.Result) {
			if p.res != nil {
				t.Error("Done was called twice")
			}
			p.res = &r
			p.events = append(p.events, "done")
		},
	})
	return p
}

func connected(t *testing.T) *pair {
	p := newPair(t)
	p.a.Connect(p.Protocol(relay.A))
	p.b.Connect(p.Protocol(relay.B))
	p.settle()
	return p
}

// settle runs both sides until nothing more happens on either.
func (p *pair) settle() {
	p.t.Helper()
	for n := -1; n != len(p.a.Trace())+len(p.b.Trace()); {
		n = len(p.a.Trace()) + len(p.b.Trace())
		p.a.Run()
		p.b.Run()
	}
}

func (p *pair) wantDone(by relay.Side, why error, a, b int64) {
	p.t.Helper()
	if p.res == nil {
		p.t.Fatal("the relay is not done")
	}
	if p.res.By != by || !errors.Is(p.res.Why, why) || why == nil && p.res.Why != nil || p.res.Local {
		p.t.Errorf("ended by %v (%v), local %v; want %v (%v)", p.res.By, p.res.Why, p.res.Local, by, why)
	}
	if p.res.Bytes != [2]int64{a, b} {
		p.t.Errorf("bytes %v, want %d and %d", p.res.Bytes, a, b)
	}
}

func lost(r *weirtest.Recorder) bool {
	is, _ := r.Lost()
	return is
}

// TestHalfClose: the end of one direction is passed on by itself, and the reply
// comes back however late it is (R32, behaviour 27).
func TestHalfClose(t *testing.T) {
	p := connected(t)
	p.a.DeliverString("request")
	p.a.DeliverEOF()
	p.settle()
	if got := p.b.TakeWritten(); got != "request" || !p.b.EOFWritten() {
		t.Fatalf("B got %q, end %v", got, p.b.EOFWritten())
	}
	if lost(p.a) || lost(p.b) || p.a.Closed() {
		t.Fatal("the end of one direction ended the other")
	}
	p.b.DeliverString("reply")
	p.b.DeliverEOF()
	p.settle()
	if got := p.a.TakeWritten(); got != "reply" || !p.a.EOFWritten() {
		t.Fatalf("A got %q, end %v", got, p.a.EOFWritten())
	}
}

// TestEndInput: what came before is passed on, and then the end; the other
// direction goes on, and what comes later stays unread.
func TestEndInput(t *testing.T) {
	p := newPair(t)
	p.EndInput(relay.A) // has no effect before it is connected
	p.a.Connect(p.Protocol(relay.A))
	p.b.Connect(p.Protocol(relay.B))
	p.settle()
	p.a.DeliverString("before")
	p.settle()
	p.EndInput(relay.A)
	p.EndInput(relay.A)
	p.settle()
	p.a.DeliverString("after")
	p.settle()
	if got := p.b.TakeWritten(); got != "before" || !p.b.EOFWritten() || !p.a.ReadingPaused() {
		t.Errorf("B got %q, end %v, A paused %v", got, p.b.EOFWritten(), p.a.ReadingPaused())
	}
	if p.Bytes() != [2]int64{6, 0} {
		t.Errorf("bytes %v", p.Bytes())
	}
	p.b.DeliverString("reply")
	p.b.DeliverEOF()
	p.settle()
	if got := p.a.TakeWritten(); got != "reply" || !p.a.EOFWritten() {
		t.Errorf("A got %q, end %v", got, p.a.EOFWritten())
	}
	p.b.Lose(nil)
	p.settle()
	if !lost(p.a) {
		t.Error("A stays, though B is over and nothing more is taken from A")
	}
	p.wantDone(relay.B, nil, 6, 5)
}

// TestNoHalfClose: a side that cannot end one direction alone is closed, after
// what was written has left.
func TestNoHalfClose(t *testing.T) {
	p := newPair(t)
	p.b.SetHalfClose(false)
	p.a.Connect(p.Protocol(relay.A))
	p.b.Connect(p.Protocol(relay.B))
	p.b.SetRoom(0)
	p.a.DeliverString("all of it")
	p.a.DeliverEOF()
	p.settle()
	if lost(p.b) || p.b.Aborted() {
		t.Fatal("B was lost before its buffer was empty")
	}
	p.b.SetRoom(-1)
	p.settle()
	if p.b.Sent() != len("all of it") || !lost(p.b) || !lost(p.a) {
		t.Fatalf("sent %d, B lost %v, A lost %v", p.b.Sent(), lost(p.b), lost(p.a))
	}
	p.wantDone(relay.A, nil, int64(len("all of it")), 0)
}

// TestEarlySide: what the side that is connected first sends waits, and is
// passed on in order once the other side is connected.
func TestEarlySide(t *testing.T) {
	for _, first := range []relay.Side{relay.A, relay.B} {
		t.Run(first.String(), func(t *testing.T) {
			p := newPair(t)
			early, late := p.a, p.b
			if first == relay.B {
				early, late = p.b, p.a
			}
			early.Connect(p.Protocol(first))
			early.DeliverString("early ")
			early.DeliverString("bytes")
			early.DeliverEOF()
			if !early.ReadingPaused() || early.Unused() != len("early bytes") || len(p.events) != 0 {
				t.Fatalf("paused %v, %d bytes wait, %v", early.ReadingPaused(), early.Unused(), p.events)
			}
			late.Connect(p.Protocol(first.Other()))
			p.settle()
			if got := late.TakeWritten(); got != "early bytes" || !late.EOFWritten() {
				t.Fatalf("got %q, end %v", got, late.EOFWritten())
			}
			if early.ReadingPaused() || fmt.Sprint(p.events) != "[connected]" {
				t.Fatalf("paused %v, %v", early.ReadingPaused(), p.events)
			}
		})
	}
}

// TestLeft: if a side's peer ends its stream, or is gone, before the other side
// is connected, the relay notices at once; a peer that only reads still gets
// the whole reply (S6).
func TestLeft(t *testing.T) {
	for _, first := range []relay.Side{relay.A, relay.B} {
		t.Run(first.String(), func(t *testing.T) {
			p := newPair(t)
			early, late := p.a, p.b
			if first == relay.B {
				early, late = p.b, p.a
			}
			early.Connect(p.Protocol(first))
			early.DeliverEOF()
			if want := "left " + first.String(); strings.Join(p.events, " ") != want {
				t.Fatalf("got %v, want %s", p.events, want)
			}
			late.Connect(p.Protocol(first.Other()))
			p.settle()
			if !late.EOFWritten() {
				t.Fatal("the end was not passed on")
			}
			late.DeliverString("the reply")
			late.DeliverEOF()
			p.settle()
			if got := early.TakeWritten(); got != "the reply" || !early.EOFWritten() {
				t.Fatalf("got %q, end %v", got, early.EOFWritten())
			}
			p = newPair(t)
			p.a.Connect(p.Protocol(relay.A))
			p.a.DeliverEOF()
			p.Abort()
			p.settle()
			if want := "left A abandon B done"; strings.Join(p.events, " ") != want {
				t.Fatalf("got %v, want %s", p.events, want)
			}
		})
	}
}

// TestLeftFor: after one side has left, a relay goes on waiting for as long as
// Left says and no longer; the other side ends the wait once it is connected
// (S6).
func TestLeftFor(t *testing.T) {
	const wait = relay.LeftFor
	p := newPair(t)
	p.leftFor = wait
	p.a.Connect(p.Protocol(relay.A))
	p.a.DeliverEOF()
	p.a.Pass(wait - 1)
	if p.res != nil {
		t.Fatalf("it ended early: %+v, %v", p.res, p.events)
	}
	p.a.Pass(1)
	p.settle()
	if want := "left A abandon B done"; strings.Join(p.events, " ") != want || p.res.Connected {
		t.Fatalf("got %v, %+v, want %s", p.events, p.res, want)
	}
	p = newPair(t)
	p.leftFor = wait
	p.a.Connect(p.Protocol(relay.A))
	p.a.DeliverEOF()
	p.a.Pass(wait - 1)
	p.b.Connect(p.Protocol(relay.B))
	p.a.Pass(wait)
	p.settle()
	if p.res != nil || !p.b.EOFWritten() {
		t.Fatalf("the wait went on: %+v, %v", p.res, p.events)
	}
}

// TestBackpressure: a slow reader pauses reading from the other side, and
// memory stays below the high mark plus one write (G3, R30).
func TestBackpressure(t *testing.T) {
	p := connected(t)
	p.b.SetRoom(0)
	chunk := make([]byte, 16<<10)
	for range 20 {
		p.a.Deliver(chunk)
		p.settle()
	}
	if !p.a.ReadingPaused() || p.b.Buffered() > 64<<10+len(chunk) || p.b.Buffered() <= 64<<10 {
		t.Fatalf("paused %v, %d bytes buffered", p.a.ReadingPaused(), p.b.Buffered())
	}
	p.b.DeliverString("the other way goes on")
	p.settle()
	if got := p.a.TakeWritten(); got != "the other way goes on" {
		t.Fatalf("got %q", got)
	}
	p.b.SetRoom(-1)
	p.settle()
	if got := len(p.b.TakeWritten()); p.a.ReadingPaused() || got != 20*len(chunk) {
		t.Fatalf("paused %v, %d bytes", p.a.ReadingPaused(), got)
	}
}

// TestReset: a failure of one side becomes a reset of the other, not an end of
// stream, and what had been received before is delivered first (G2).
func TestReset(t *testing.T) {
	p := connected(t)
	p.b.SetRoom(0)
	p.a.DeliverString("received before")
	p.settle()
	p.a.Lose(syscall.ECONNRESET)
	p.settle()
	if p.b.Aborted() || p.res != nil {
		t.Fatal("B was aborted before what A had sent was delivered")
	}
	p.b.DeliverString("nobody is there to take this")
	p.b.SetRoom(-1)
	p.settle()
	if !p.b.Aborted() || p.b.Sent() != len("received before") || p.b.EOFWritten() {
		t.Fatalf("aborted %v, %d bytes sent, end %v", p.b.Aborted(), p.b.Sent(), p.b.EOFWritten())
	}
	p.wantDone(relay.A, syscall.ECONNRESET, int64(len("received before")), 0)
	// With nothing to deliver, the reset comes at once.
	p = connected(t)
	p.b.Lose(syscall.EPIPE)
	p.settle()
	if !p.a.Aborted() {
		t.Fatal("A was not aborted")
	}
	p.wantDone(relay.B, syscall.EPIPE, 0, 0)
}

// TestReaderGone: a program that has ended its output, which was passed on, and
// then stops reading has not failed as far as the other side is concerned: that
// side is closed, not reset.
func TestReaderGone(t *testing.T) {
	gone := &net.OpError{Op: "write", Net: "pipe", Err: syscall.EPIPE}
	p := connected(t)
	p.a.DeliverString("all of it")
	p.a.DeliverEOF()
	p.settle()
	p.a.Lose(gone)
	p.settle()
	if p.b.Aborted() || !p.b.Closed() || p.b.TakeWritten() != "all of it" {
		t.Errorf("B: aborted %v, closed %v", p.b.Aborted(), p.b.Closed())
	}
	p.wantDone(relay.A, syscall.EPIPE, int64(len("all of it")), 0)
	// Before the end of its output this is a failure; on a socket it always is.
	p = connected(t)
	p.a.Lose(gone)
	p.settle()
	if !p.b.Aborted() {
		t.Error("B was not aborted")
	}
	p = connected(t)
	p.a.DeliverEOF()
	p.settle()
	p.a.Lose(&net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE})
	p.settle()
	if !p.b.Aborted() {
		t.Error("B was not aborted")
	}
}

// TestReplyWithoutReader: a program that reads no more may take its time over its reply,
// and what the other side sends is dropped meanwhile.
func TestReplyWithoutReader(t *testing.T) {
	p := connected(t)
	p.Protocol(relay.B).(weir.WriteFailer).WriteFailed(weir.ErrReaderGone)
	p.a.DeliverString("unwanted")
	p.settle()
	p.a.Pass(time.Hour)
	p.b.Pass(time.Hour)
	p.settle()
	if p.res != nil || p.a.ReadingPaused() {
		t.Fatalf("it ended: %+v", p.res)
	}
	p.b.DeliverString("late")
	p.b.DeliverEOF()
	p.settle()
	if p.a.TakeWritten() != "late" || !p.a.EOFWritten() || p.b.TakeWritten() != "" {
		t.Errorf("A has its end %v, aborted %v", p.a.EOFWritten(), p.a.Aborted())
	}
	p.a.DeliverEOF()
	p.b.Lose(nil)
	p.settle()
	p.wantDone(relay.B, nil, 0, int64(len("late")))
}

// TestLostWhileClosing: if a side fails while it sends its last bytes, as
// standard output does on a full disk, the relay has failed; this is not a
// clean end.
func TestLostWhileClosing(t *testing.T) {
	p := connected(t)
	p.a.SetRoom(0)
	p.b.DeliverString("last words")
	p.settle()
	p.b.Lose(nil)
	p.settle()
	if p.res != nil {
		t.Fatal("the relay is over before everything has left")
	}
	p.a.Lose(syscall.ENOSPC)
	p.settle()
	p.wantDone(relay.A, syscall.ENOSPC, 0, int64(len("last words")))
}

// TestResetDrains: a side that only empties its buffer before the reset still
// reads. Otherwise a peer that does not read until its own bytes have left
// would hold up the relay for ever (G10).
func TestResetDrains(t *testing.T) {
	p := connected(t)
	p.a.SetRoom(0)
	p.b.SetRoom(0)
	p.b.Deliver(make([]byte, 200<<10))
	p.settle()
	if !p.b.ReadingPaused() {
		t.Fatal("B is read although A takes no more")
	}
	p.a.DeliverString("received before")
	p.settle()
	p.a.Lose(syscall.EPIPE)
	p.settle()
	if p.b.Aborted() || p.b.ReadingPaused() {
		t.Fatalf("aborted %v, reading paused %v", p.b.Aborted(), p.b.ReadingPaused())
	}
	p.b.Deliver(make([]byte, 300<<10))
	p.settle()
	if n := p.b.Unused(); n > 0 {
		t.Errorf("%d bytes of B's peer were not read", n)
	}
	p.b.SetRoom(-1)
	p.settle()
	if !p.b.Aborted() {
		t.Error("B was not aborted")
	}
}

// TestClean: a clean end of one side closes the other after it is flushed.
func TestClean(t *testing.T) {
	p := connected(t)
	p.a.SetRoom(0)
	p.b.DeliverString("last words")
	p.settle()
	p.b.Lose(nil)
	p.settle()
	if p.a.Aborted() || lost(p.a) {
		t.Fatal("A ended before its buffer was empty")
	}
	p.a.SetRoom(-1)
	p.settle()
	if !lost(p.a) || p.a.Aborted() || p.a.Sent() != len("last words") {
		t.Fatalf("lost %v, aborted %v, sent %d", lost(p.a), p.a.Aborted(), p.a.Sent())
	}
	p.wantDone(relay.B, nil, 0, int64(len("last words")))
}

// TestConnectFails: the side that is connected is reset, so that its peer does
// not take the failure for an empty reply, unless the connect is tried again.
func TestConnectFails(t *testing.T) {
	p := newPair(t)
	p.a.Connect(p.Protocol(relay.A))
	failed := &weir.ConnectError{Address: "x", Err: syscall.ECONNREFUSED}
	p.again = true
	p.Protocol(relay.B).(weir.ConnectFailer).ConnectFailed(failed)
	if p.a.Closed() || p.res != nil {
		t.Fatal("the relay ended although the connect goes on")
	}
	p.again = false
	p.Protocol(relay.B).(weir.ConnectFailer).ConnectFailed(failed)
	p.settle()
	if !p.a.Aborted() {
		t.Fatal("A was not reset")
	}
	p.wantDone(relay.B, syscall.ECONNREFUSED, 0, 0)
	if p.res.Connected || strings.Join(p.events, " ") != "failed B failed B done" {
		t.Errorf("connected %v, %v", p.res.Connected, p.events)
	}
}

// TestLostWhileConnecting: connecting the other side is given up, and a
// connection that is made all the same is refused.
func TestLostWhileConnecting(t *testing.T) {
	p := newPair(t)
	p.a.Connect(p.Protocol(relay.A))
	p.a.Lose(syscall.ECONNRESET)
	if strings.Join(p.events, " ") != "abandon B done" {
		t.Fatalf("got %v", p.events)
	}
	p.b.Connect(p.Protocol(relay.B))
	p.b.DeliverString("too late")
	if !p.b.Aborted() || len(p.events) != 2 {
		t.Fatalf("aborted %v, %v", p.b.Aborted(), p.events)
	}
}

// TestAbort ends both sides in every state, once.
func TestAbort(t *testing.T) {
	p := connected(t)
	p.Abort()
	p.Abort()
	p.settle()
	if !p.a.Aborted() || !p.b.Aborted() || p.res == nil || !p.res.Local {
		t.Fatalf("A %v, B %v, %+v", p.a.Aborted(), p.b.Aborted(), p.res)
	}
	p = newPair(t)
	p.a.Connect(p.Protocol(relay.A))
	p.Abort()
	p.settle()
	if strings.Join(p.events, " ") != "abandon B done" || !p.a.Aborted() {
		t.Fatalf("got %v, aborted %v", p.events, p.a.Aborted())
	}
	p = newPair(t)
	p.Abort()
	if strings.Join(p.events, " ") != "abandon A abandon B done" {
		t.Fatalf("got %v", p.events)
	}
}

// TestChopped: however the stream is cut into pieces, the same bytes come out
// (behaviour 92).
func TestChopped(t *testing.T) {
	text := strings.Repeat("the quick brown fox ", 500)
	for _, chop := range []weirtest.Chop{weirtest.Whole(), weirtest.ByteByByte(), weirtest.Pieces(1, 7, 300), weirtest.Random(1)} {
		t.Run(chop.String(), func(t *testing.T) {
			r := relay.New(relay.Config{})
			client, server := &peer{say: text}, &peer{}
			left := weirtest.NewPump(t, client, r.Protocol(relay.A), chop)
			right := weirtest.NewPump(t, r.Protocol(relay.B), server, chop)
			for left.Step() || right.Step() {
			}
			if string(server.heard) != text || !server.eof {
				t.Errorf("%d of %d bytes, end %v", len(server.heard), len(text), server.eof)
			}
		})
	}
}

// peer sends something, ends its direction and listens.
type peer struct {
	say   string
	heard []byte
	eof   bool
	err   error
}

func (p *peer) ConnectionMade(t weir.Transport) {
	if p.say != "" {
		_, p.err = t.Write([]byte(p.say))
		p.err = errors.Join(p.err, t.WriteEOF())
	}
}

func (p *peer) DataReceived(b []byte) (int, error) {
	p.heard = append(p.heard, b...)
	return len(b), nil
}

func (p *peer) EOFReceived(int) (bool, error) {
	p.eof = true
	return false, nil
}

func (p *peer) ConnectionLost(err error) { p.err = errors.Join(p.err, err) }
