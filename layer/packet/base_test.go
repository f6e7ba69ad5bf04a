package packet_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/weirtest"
)

const local = "127.0.0.1:0"

// TestEndpointOverLayers: over three layers an endpoint keeps what one with a socket
// promises.
func TestEndpointOverLayers(t *testing.T) {
	three := []packet.Layer{newPlain, newPlain, newPlain}
	everywhere(t, func(t *testing.T, l *weir.Loop) {
		a, b := &ear{}, &ear{}
		ea := listen(t, l, local, a, nil)
		eb := listen(t, l, local, b, three, weir.WithMaxDatagram(8))
		b.on = func(p []byte, from weir.PacketAddr) { send(t, eb, "re:"+string(p), from) }
		for _, s := range []string{"one", "", "three"} {
			send(t, ea, s, eb.Local())
		}
		weirtest.Until(t, l, "answers", func() bool { return len(a.got) == 3 })
		if got := strings.Join(a.got, " "); got != "re:one re: re:three" || a.from[0] != eb.Local() {
			t.Errorf("%q from %v, not %v", got, a.from[0], eb.Local())
		}
		if b.e != eb {
			t.Error("EndpointMade had another endpoint than Listen returned")
		}

		send(t, ea, "longer than eight", eb.Local())
		weirtest.Until(t, l, "the failure", func() bool { return len(b.failed) == 1 })
		if !errors.Is(b.failed[0], weir.ErrTruncated) {
			t.Error(b.failed)
		}

		b.on = nil
		eb.PauseReading()
		send(t, ea, "later", eb.Local())
		seen := false
		timer := l.After(20*time.Millisecond, func() { seen = true })
		weirtest.Until(t, l, "a while", func() bool { return seen })
		timer.Stop()
		if len(b.got) != 3 {
			t.Errorf("while paused: %q", b.got)
		}
		eb.ResumeReading()
		weirtest.Until(t, l, "what waited", func() bool { return len(b.got) == 4 })

		if err := eb.SendTo([]byte("x"), weir.PacketAddr{Path: "/nowhere"}); err == nil {
			t.Error("a path could be sent to")
		}
		_ = eb.Close()
		if err := eb.SendTo([]byte("x"), ea.Local()); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if b.lost != 0 {
			t.Error("lost from inside Close")
		}
		weirtest.Until(t, l, "the end", func() bool { return b.lost == 1 })
		if b.err != nil || b.trace[0] != "made" || b.trace[len(b.trace)-1] != "lost" || slices.Index(b.trace[1:], "made") >= 0 {
			t.Errorf("%v, %q", b.err, b.trace)
		}

		c, d := &ear{}, &ear{}
		listen(t, l, local, c, three).Abort()
		listen(t, l, local, d, three)
		weirtest.Until(t, l, "the abort", func() bool { return c.lost == 1 })
		if !errors.Is(c.err, weir.ErrAborted) {
			t.Errorf("after Abort: %v", c.err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if d.lost != 1 || a.lost != 1 || !errors.Is(d.err, weir.ErrLoopClosed) {
			t.Errorf("after the loop's Close: %d %d %v", d.lost, a.lost, d.err)
		}
	})
}

// gate is a carrier that takes datagrams while it is open.
type gate struct {
	feed   *weir.PacketFeed
	open   bool
	took   []string
	calls  []string
	panics string
}

func (g *gate) say(what string) {
	g.calls = append(g.calls, what)
	if g.panics == what {
		panic(what)
	}
}

func (g *gate) SendTo(p []byte, _ weir.PacketAddr) (bool, error) {
	if !g.open {
		return false, nil
	}
	g.took = append(g.took, string(p))
	g.say("send")
	return true, nil
}
func (g *gate) PauseReading()  { g.say("pause") }
func (g *gate) ResumeReading() { g.say("resume") }
func (g *gate) Close(abort bool) {
	g.say(fmt.Sprintf("close %v", abort))
	g.feed.Closed(nil)
}

// TestCarrierBounds: what a carrier does not take waits in the endpoint, up to its
// bound, with the marks of one that has a socket; Close waits for it.
func TestCarrierBounds(t *testing.T) {
	everywhere(t, func(t *testing.T, l *weir.Loop) {
		p, g := &ear{}, &gate{}
		f, err := l.CarryPackets(g, p, weir.WithWriteMarks(100, 20))
		if err != nil {
			t.Fatal(err)
		}
		g.feed = f
		f.Begin()
		e := f.Endpoint()
		n := 0
		for ; n < 1000; n++ {
			if err = e.SendTo([]byte("0123456789"), weir.PacketAddr{Path: "x"}); err != nil {
				break
			}
		}
		if !errors.Is(err, weir.ErrSendBufferFull) || n != 40 || e.Buffered() != 400 {
			t.Fatalf("%v after %d, %d buffered", err, n, e.Buffered())
		}
		if got := strings.Join(p.trace, " "); got != "made pause" {
			t.Error(got)
		}
		_ = e.Close()
		if len(g.calls) != 0 {
			t.Errorf("closed with datagrams that wait: %q", g.calls)
		}
		g.open = true
		f.Writable()
		weirtest.Until(t, l, "the end", func() bool { return p.lost == 1 })
		if got := strings.Join(p.trace, " "); got != "made pause resume lost" || len(g.took) != 40 || p.err != nil {
			t.Error(got, len(g.took), p.err)
		}
		if got := strings.Join(g.calls[40:], " "); got != "close false" {
			t.Error(got)
		}
	})
}

// TestCarrierDelivers: what is delivered to a protocol that has paused is kept up to a
// bound, and what comes from inside its own call follows it.
func TestCarrierDelivers(t *testing.T) {
	everywhere(t, func(t *testing.T, l *weir.Loop) {
		p, g := &ear{}, &gate{open: true}
		f, err := l.CarryPackets(g, p, weir.WithWriteMarks(100, 20), weir.WithMaxDatagram(10))
		if err != nil {
			t.Fatal(err)
		}
		g.feed = f
		from := weir.PacketAddr{Path: "x"}
		f.Deliver([]byte("early"), from)
		f.Begin()
		depth := 0
		p.on = func(b []byte, _ weir.PacketAddr) {
			if depth++; depth > 1 {
				t.Error("called from inside")
			}
			if string(b) == "a" {
				f.Deliver([]byte("b"), from)
			}
			depth--
		}
		f.Deliver([]byte("a"), from)
		weirtest.Until(t, l, "both", func() bool { return len(p.got) == 2 })
		if got := strings.Join(p.got, " "); got != "a b" {
			t.Error(got)
		}
		f.Deliver([]byte("01234567890"), from)
		if len(p.failed) != 1 || !errors.Is(p.failed[0], weir.ErrTruncated) {
			t.Error(p.failed)
		}
		f.Endpoint().PauseReading()
		for range 50 {
			f.Deliver([]byte("0123456789"), from)
		}
		if f.Dropped() != 10 || len(p.got) != 2 || !f.Paused() {
			t.Errorf("%d dropped, %q", f.Dropped(), p.got)
		}
		f.Endpoint().ResumeReading()
		weirtest.Until(t, l, "the rest", func() bool { return len(p.got) == 42 })
		if got := strings.Join(g.calls, " "); got != "pause resume" {
			t.Error(got)
		}
		f.Fail(layer.ErrTimeout)
		weirtest.Until(t, l, "the end", func() bool { return p.lost == 1 })
		if !errors.Is(p.err, layer.ErrTimeout) {
			t.Error(p.err)
		}
		f.Deliver([]byte("late"), from)
		if len(p.got) != 42 {
			t.Error("delivered after the end")
		}
	})
}

// TestCarrierPanics: a panic in a layer is reported, and neither ends the loop nor
// keeps the endpoint from ending.
func TestCarrierPanics(t *testing.T) {
	for _, where := range []string{"send", "pause", "resume", "close false", "close true"} {
		t.Run(where, func(t *testing.T) {
			var told []error
			l, err := weir.NewLoop(weir.WithErrorHandler(func(err error) { told = append(told, err) }))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			p, g := &ear{}, &gate{open: true, panics: where}
			f, err := l.CarryPackets(g, p)
			if err != nil {
				t.Fatal(err)
			}
			g.feed = f
			f.Begin()
			e := f.Endpoint()
			err = e.SendTo([]byte("x"), weir.PacketAddr{Path: "x"})
			var panicked *weir.PanicError
			if errors.As(err, &panicked) != (where == "send") {
				t.Error(err)
			}
			e.PauseReading()
			e.ResumeReading()
			resumed := false
			l.Soon(func() { resumed = true })
			weirtest.Until(t, l, "a turn", func() bool { return resumed })
			if where == "close true" {
				e.Abort()
			} else {
				_ = e.Close()
			}
			weirtest.Until(t, l, "the end", func() bool { return p.lost == 1 })
			if len(told) != 1 || !errors.As(told[0], &panicked) {
				t.Errorf("told %v", told)
			}
		})
	}
}

// TestMarksThroughLayers: where what is below takes nothing, the writer above layers is
// told to pause, and hears once that it may go on and that everything has left, in
// order.
func TestMarksThroughLayers(t *testing.T) {
	everywhere(t, func(t *testing.T, l *weir.Loop) {
		p, g := &ear{}, &gate{}
		e, err := packet.Stack(l, func(lowest weir.PacketProtocol) (*weir.PacketEndpoint, error) {
			f, err := l.CarryPackets(g, lowest, weir.WithWriteMarks(100, 20))
			g.feed = f
			return f.Endpoint(), err
		}, p, []packet.Layer{newPlain, newPlain})
		if err != nil {
			t.Fatal(err)
		}
		g.feed.Begin()
		n := 0
		for ; n < 1000 && err == nil; n++ {
			err = e.SendTo(fmt.Appendf(nil, "%010d", n), weir.PacketAddr{Path: "x"})
		}
		if !errors.Is(err, weir.ErrSendBufferFull) || n > 100 || e.Buffered() != 10*(n-1) {
			t.Fatalf("%v after %d, %d buffered", err, n, e.Buffered())
		}
		g.open = true
		g.feed.Writable()
		if got := strings.Join(p.trace, " "); got != "made pause resume drained" || len(g.took) != n-1 || !slices.IsSorted(g.took) || e.Buffered() != 0 {
			t.Errorf("%s; %d of %d left, %d buffered", got, len(g.took), n-1, e.Buffered())
		}
	})
}

// TestHeldDatagramsLeave: Close waits for what a layer holds.
func TestHeldDatagramsLeave(t *testing.T) {
	everywhere(t, func(t *testing.T, l *weir.Loop) {
		a, b := &ear{}, &ear{}
		ea := listen(t, l, local, a, nil)
		slow := packet.Fault(packet.FaultConfig{Out: packet.Faults{Latency: 30 * time.Millisecond}})
		eb := listen(t, l, local, b, []packet.Layer{slow, newPlain})
		send(t, eb, "one", ea.Local())
		send(t, eb, "two", ea.Local())
		if eb.Buffered() != 6 {
			t.Errorf("%d buffered", eb.Buffered())
		}
		_ = eb.Close()
		weirtest.Until(t, l, "both and the end", func() bool { return len(a.got) == 2 && b.lost == 1 })
		if b.err != nil || strings.Join(a.got, " ") != "one two" {
			t.Error(b.err, a.got)
		}
	})
}
