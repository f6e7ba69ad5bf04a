package contract

import (
	"errors"
	"slices"
	"testing"

	"github.com/weir-io/weir"
)

// scriptCarrier notes its calls, and does what a test says.
type scriptCarrier struct {
	feed   *weir.Feed
	calls  []string
	taken  int
	write  func(bufs [][]byte)
	closes bool // Close calls Closed
}

func (c *scriptCarrier) Write(bufs [][]byte) (n int, err error) {
	for _, p := range bufs {
		n += len(p)
	}
	c.taken += n
	if c.write != nil {
		c.write(bufs)
	}
	return n, nil
}
func (c *scriptCarrier) CloseWrite() error   { return nil }
func (c *scriptCarrier) CanCloseWrite() bool { return true }
func (c *scriptCarrier) PauseReading()       {}
func (c *scriptCarrier) ResumeReading()      {}

func (c *scriptCarrier) Close(abort bool) {
	if abort {
		c.calls = append(c.calls, "abort")
	} else {
		c.calls = append(c.calls, "close")
	}
	if c.closes {
		c.feed.Closed(nil)
	}
}

// carriedBy makes a feed for c.
func carriedBy(t *testing.T, l *weir.Loop, c *scriptCarrier) {
	t.Helper()
	feed, err := l.Carry(c)
	if err != nil {
		t.Fatal(err)
	}
	c.feed = feed
}

// served is an endCounter on a carrier, after its ConnectionMade.
func served(t *testing.T, l *weir.Loop, c *scriptCarrier) *endCounter {
	t.Helper()
	carriedBy(t, l, c)
	p := &endCounter{}
	c.feed.Begin(func(weir.Transport) weir.Protocol { return p })
	someTurns(t, l)
	return p
}

// endCounter counts its callbacks, and keeps the stream open after its end.
type endCounter struct {
	weir.Transport
	made, lost, failed int
	reason             error
}

func (p *endCounter) ConnectionMade(t weir.Transport)      { p.Transport = t; p.made++ }
func (p *endCounter) DataReceived(b []byte) (int, error)   { return len(b), nil }
func (p *endCounter) EOFReceived(int) (keep bool, _ error) { return true, nil }
func (p *endCounter) WriteFailed(error)                    { p.failed++ }
func (p *endCounter) ConnectionLost(err error)             { p.lost++; p.reason = err }

// someTurns runs what is queued, and what that queues.
func someTurns(t *testing.T, l *weir.Loop) {
	t.Helper()
	for range 5 {
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAbortInFeedFactory: a protocol that was made is told of the end, even if the
// carrier is closed before the factory has returned (G1).
func TestAbortInFeedFactory(t *testing.T) {
	l := newLoop(t)
	defer l.Close()
	c := &scriptCarrier{closes: true}
	carriedBy(t, l, c)
	p := &endCounter{}
	c.feed.Begin(func(tr weir.Transport) weir.Protocol { tr.Abort(); return p })
	someTurns(t, l)
	if p.made != p.lost || !errors.Is(p.reason, weir.ErrAborted) {
		t.Errorf("made %d, lost %d with %v", p.made, p.lost, p.reason)
	}
}

// TestCloseBesideFeedThatNeverBegan: a Loop's Close closes all connections.
func TestCloseBesideFeedThatNeverBegan(t *testing.T) {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	c := &scriptCarrier{closes: true}
	served(t, l, c)
	idle := &scriptCarrier{closes: true}
	carriedBy(t, l, idle)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(c.calls, []string{"close"}) {
		t.Errorf("the carrier was told %v", c.calls)
	}
}

// TestFailedAfterEnd: if the carrier fails after the peer's end of stream, a protocol
// that keeps its side open gets WriteFailed, and the loss has the reason.
func TestFailedAfterEnd(t *testing.T) {
	l := newLoop(t)
	defer l.Close()
	c := &scriptCarrier{}
	p := served(t, l, c)
	c.feed.End(nil)
	someTurns(t, l)
	p.PauseReading()
	someTurns(t, l)
	gone := errors.New("gone")
	c.feed.Closed(gone)
	someTurns(t, l)
	if p.failed != 1 || p.lost != 1 || !errors.Is(p.reason, gone) {
		t.Errorf("failed %d, lost %d with %v", p.failed, p.lost, p.reason)
	}
}

// TestWriteInWrite: what a protocol writes while its carrier is writing is sent too.
func TestWriteInWrite(t *testing.T) {
	l := newLoop(t)
	defer l.Close()
	c := &scriptCarrier{}
	p := served(t, l, c)
	once := true
	c.write = func([][]byte) {
		if once {
			once = false
			_, _ = p.Write([]byte("more"))
		}
	}
	_, _ = p.Write([]byte("first"))
	someTurns(t, l)
	if c.taken != len("firstmore") || p.Buffered() != 0 {
		t.Errorf("%d bytes left, %d wait", c.taken, p.Buffered())
	}
}

// TestPanicInStopProducing: the panic is the reason of the loss.
func TestPanicInStopProducing(t *testing.T) {
	l := newLoop(t, weir.WithErrorHandler(func(error) {}))
	defer l.Close()
	p := served(t, l, &scriptCarrier{closes: true})
	if err := p.RegisterProducer(stopPanics{}); err != nil {
		t.Fatal(err)
	}
	p.Abort()
	someTurns(t, l)
	if _, ok := errors.AsType[*weir.PanicError](p.reason); !ok {
		t.Errorf("lost with %v", p.reason)
	}
}

type stopPanics struct{}

func (stopPanics) Streaming() bool  { return true }
func (stopPanics) PauseProducing()  {}
func (stopPanics) ResumeProducing() {}
func (stopPanics) StopProducing()   { panic("stop") }
